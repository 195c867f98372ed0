"""Many runs and what follows from them: studies, runs of record, claims, reports."""

"""What is sent: constellations of the digital classes, messages and modulators of the analogue ones."""

# JupyterLab on the notebooks, or a command, on CPUs. Not built yet.
#
#     docker build -t amc .
#     docker run --rm -p 8888:8888 amc
#     docker run --rm -v "$PWD:/data:ro" amc amc classify /data/recording.wav
FROM python:3.13-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 reader \
    && install -d -o reader /home/reader/repository
USER 1000
WORKDIR /home/reader/repository
COPY --chown=1000 . .
RUN make .venv/.installed TORCH=cpu && rm -rf ~/.cache
ENV PATH=/home/reader/repository/.venv/bin:$PATH
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "notebooks"]

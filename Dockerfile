# The gateway alone: `docker build --tag justenough .` See docs/how-to/docker.md.
FROM python:3.13-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY src src
# The gateway reads no Parquet: without pyarrow the image is 170 MB smaller. Tests of other packages and debug symbols
# of the compiled ones are not needed either. NumPy's and SciPy's libraries are stripped already.
RUN python -m venv --without-pip /opt/justenough \
    && pip --python /opt/justenough/bin/python install --no-cache-dir --no-compile \
        --constraint requirements.lock '.[gateway]' \
    && pip --python /opt/justenough/bin/python uninstall --yes pyarrow \
    && find /opt/justenough -type d -name tests -prune -exec rm -rf {} + \
    && find /opt/justenough -name '*.so' \( -path '*/uvloop/*' -o -path '*/aiohttp/*' \) \
        -exec strip --strip-unneeded {} +

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data --create-home justenough
COPY --from=build /opt/justenough /opt/justenough
ENV PATH=/opt/justenough/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    JUSTENOUGH_HOST=0.0.0.0 \
    JUSTENOUGH_ALLOW_REMOTE=true
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
# The health of the gateway alone: /ready would also ask the upstream.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as web; web.urlopen(f'http://127.0.0.1:{os.environ.get(\"JUSTENOUGH_PORT\", 8080)}/health', timeout=4)"]
ENTRYPOINT ["justenough"]
CMD ["serve"]

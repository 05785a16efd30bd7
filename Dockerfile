# The serving image. It copies models/, service/, the plugins that serve and the command only; training and its libraries stay outside.
#
#   docker build -t spikeserve .                          CPU: no PyTorch
#   docker build -t spikeserve:gpu --target gpu .         CUDA: PyTorch as well; run it with --gpus all
#   docker build --build-arg REMOTE=1 …                   either of them with what opens repositories at URLs such as s3://…
#   docker build --build-arg GRPC=1 …                     the same with gRPC, for SPIKESERVE_GRPC_PORT
#   docker run --read-only -p 8000:8000 spikeserve
#
# It serves the bundles that ship with the project, unless SPIKESERVE_REPOSITORY names another model repository:
#
#   docker run --read-only -p 8000:8000 -v "$PWD/repository:/repository:ro" -e SPIKESERVE_REPOSITORY=/repository spikeserve
#
# Nothing is written at run time. A setting is an environment variable, or an argument as `spikeserve serve` takes it.

FROM python:3.13-slim AS packages
COPY requirements/serve.txt /requirements/
# Bytecode is compiled here, once, and never checked against its source, since neither changes in an image. The tests of
# Numba and NumPy, 27 MB and as much bytecode, are used by nobody.
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --only-binary :all: \
      --require-hashes -r /requirements/serve.txt \
 && rm -r /opt/venv/lib/python*/site-packages/numba/tests /opt/venv/lib/python*/site-packages/llvmlite/tests \
      /opt/venv/lib/python*/site-packages/numpy/*/tests \
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

ARG REMOTE=
ARG GRPC=
COPY requirements/remote.txt requirements/grpc.txt /requirements/
RUN for extra in ${REMOTE:+remote} ${GRPC:+grpc}; do \
      pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --only-binary :all: \
        -r "/requirements/$extra.txt" \
      && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib || exit 1; \
    done

FROM packages AS packages-gpu
COPY requirements/gpu.txt /requirements/
RUN pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --only-binary :all: \
      -r /requirements/gpu.txt \
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib

FROM packages AS app
WORKDIR /app
COPY models/ models/
COPY service/ service/
COPY plugins/__init__.py plugins/
COPY plugins/gallery/ plugins/gallery/
COPY plugins/grpc/ plugins/grpc/
COPY plugins/local/ plugins/local/
# The command, and links: spikeserve/models is models/, and so on.
COPY spikeserve/ spikeserve/
# The kernels are compiled for x86-64-v3, and for v4 if the processor has it that builds the image; a file says which there
# are. On other architectures they are for that processor alone, and another one compiles them at start. All is made
# readable by the image's user, whatever the umask of the checkout.
ARG COMPILE="from spikeserve.service.inference.decoding.readers import prepare; prepare('event')"
RUN case "$(uname -m) $(cat /proc/cpuinfo)" in \
      x86_64*avx512vl*) levels="x86-64-v3 x86-64-v4" ;; x86_64*) levels=x86-64-v3 ;; *) levels= ;; \
    esac \
 && for level in ${levels:-host}; do \
      { [ $level = host ] || export NUMBA_CPU_NAME=$level; } \
      && /opt/venv/bin/python -c "$COMPILE" \
      && touch "models/engines/event/__pycache__/$level" || exit 1; \
    done \
 && python -m compileall -q --invalidation-mode unchecked-hash . \
 && chmod -R a+rX .

FROM python:3.13-slim AS runtime
LABEL org.opencontainers.image.title="Spikeserve" \
      org.opencontainers.image.description="Serves spiking neural networks over HTTP, spike for spike" \
      org.opencontainers.image.licenses="Apache-2.0"
# A fixed number, so that an orchestrator can see that the user is not root and give it the volumes that it reads.
RUN groupadd --gid 10001 spikeserve \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin spikeserve
# SPIKESERVE_DRAIN_SECONDS: until a load balancer that looks every second or two has noticed. TMPDIR: the one folder that
# --read-only leaves writable; the process that reads a repository at a URL passes its answer there.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/dev/shm \
    NUMBA_CPU_NAME=x86-64 \
    SPIKESERVE_HOST=0.0.0.0 \
    SPIKESERVE_PORT=8000 \
    SPIKESERVE_DRAIN_SECONDS=5 \
    SPIKESERVE_REPOSITORY=/app/models/pretrained
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Ready means loaded, warm and verified. It asks the port that the environment names, so set another one there and not by
# an argument. The empty ProxyHandler: a proxy that the environment names is not asked.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "\
import os, urllib.request as request; \
opener = request.build_opener(request.ProxyHandler({})); \
opener.open('http://127.0.0.1:' + os.environ['SPIKESERVE_PORT'] + '/health/ready', timeout=4)"]
ENTRYPOINT ["python", "-m", "spikeserve.service"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    SPIKESERVE_DEVICE=cuda
COPY --from=packages-gpu /opt/venv /opt/venv
COPY --from=app /app /app

# Last, and so what a build without --target makes.
FROM runtime AS cpu
COPY --from=packages /opt/venv /opt/venv
COPY --from=app /app /app

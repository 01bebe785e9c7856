"""Exports one checkpoint in three forms: Hugging Face folder, ONNX with a KV cache, GGUF.

The weights are rounded to half precision once. All three forms contain the same rounded values (ONNX as float16
initialisers that are cast when they are loaded, GGUF as F32). So their logits agree up to float32 rounding.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from training.checkpoints import Weights, hugging_face_weights, load
from training.model import Shape, rotary
from training.tokenizer import ASSISTANT, CHAT_TEMPLATE, END, USER, build, end_of_sequence

MICROSOFT: Final = "com.microsoft"


def write_hugging_face(weights: Weights, shape: Shape, folder: Path) -> None:
    """`config.json`, `model.safetensors`, tokenizer and chat template, as `from_pretrained` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build()
    tokenizer.save(str(folder / "tokenizer.json"))
    end = end_of_sequence(tokenizer)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_attention_heads,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.rms_norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": end,
        "torch_dtype": "float16",
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"eos_token_id": end, "pad_token_id": end, "do_sample": True})
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": END,
            "additional_special_tokens": [USER, ASSISTANT],
            "clean_up_tokenization_spaces": False,
            "model_max_length": shape.max_position_embeddings,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_onnx(weights: Weights, shape: Shape, path: Path) -> None:
    """ONNX with ONNX Runtime's `GroupQueryAttention`: it writes the KV cache in place, each row at its own length."""
    graph = _Graph(weights)
    head = shape.hidden_size // shape.num_attention_heads
    cos, sin = rotary(shape)
    graph.constant("cos", cos.numpy())
    graph.constant("sin", sin.numpy())
    x = graph.node("Gather", graph.weight("model.embed_tokens.weight"), "ids")
    cache: list[str | int | None] = ["rows", shape.num_attention_heads, "positions", head]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", "length"]),
        helper.make_tensor_value_info("last_position", TensorProto.INT32, ["rows"]),
        helper.make_tensor_value_info("total_length", TensorProto.INT32, [1]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", "length", shape.vocab_size])]
    for layer in range(shape.num_hidden_layers):
        name = f"model.layers.{layer}"
        normed = graph.norm(x, f"{name}.input_layernorm.weight", shape.rms_norm_eps)
        q, k, v = (graph.linear(normed, f"{name}.self_attn.{part}_proj.weight") for part in "qkv")
        for kind in ("key", "value"):
            inputs.append(helper.make_tensor_value_info(f"past_{kind}_{layer}", TensorProto.FLOAT, cache))
            outputs.append(helper.make_tensor_value_info(f"present_{kind}_{layer}", TensorProto.FLOAT, cache))
        attended = f"attended_{layer}"
        graph.nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                [q, k, v, f"past_key_{layer}", f"past_value_{layer}", "last_position", "total_length", "cos", "sin"],
                [attended, f"present_key_{layer}", f"present_value_{layer}"],
                domain=MICROSOFT,
                num_heads=shape.num_attention_heads,
                kv_num_heads=shape.num_attention_heads,
                do_rotary=1,
                scale=1 / math.sqrt(head),
            )
        )
        x = graph.node("Add", x, graph.linear(attended, f"{name}.self_attn.o_proj.weight"))
        normed = graph.norm(x, f"{name}.post_attention_layernorm.weight", shape.rms_norm_eps)
        gate = graph.linear(normed, f"{name}.mlp.gate_proj.weight")
        up = graph.linear(normed, f"{name}.mlp.up_proj.weight")
        gated = graph.node("Mul", graph.node("Mul", gate, graph.node("Sigmoid", gate)), up)
        x = graph.node("Add", x, graph.linear(gated, f"{name}.mlp.down_proj.weight"))
    normed = graph.norm(x, "model.norm.weight", shape.rms_norm_eps)
    graph.linear(normed, "model.embed_tokens.weight", output="logits")
    model = helper.make_model(
        helper.make_graph(graph.nodes, "justenough", inputs, outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)],
        ir_version=9,
    )
    helper.set_model_props(model, {"positions": str(shape.max_position_embeddings)})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


class _Graph:
    """Collects the nodes and the half-precision initialisers of a graph."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._single: dict[str, str] = {}

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, operator: str, *inputs: str, output: str | None = None) -> str:
        name = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name]))
        return name

    def weight(self, name: str) -> str:
        """A stored weight as float32, (out, in)."""
        if name not in self._single:
            self.constant(name, self.weights[name])
            self.nodes.append(helper.make_node("Cast", [name], [f"{name}.single"], to=TensorProto.FLOAT))
            self._single[name] = f"{name}.single"
        return self._single[name]

    def linear(self, x: str, name: str, *, output: str | None = None) -> str:
        """x · Wᵀ; ONNX Runtime folds the transposition when it creates the session."""
        transposed = f"{name}.transposed"
        self.nodes.append(helper.make_node("Transpose", [self.weight(name)], [transposed], perm=[1, 0]))
        return self.node("MatMul", x, transposed, output=output)

    def norm(self, x: str, name: str, eps: float) -> str:
        """RMSNorm from primitive operators, which every version of ONNX Runtime has."""
        if not any(tensor.name == "eps" for tensor in self.initializers):
            self.constant("eps", np.array([eps], dtype=np.float32))
            self.constant("last_axis", np.array([-1], dtype=np.int64))
        mean = self.node("ReduceMean", self.node("Mul", x, x), "last_axis")
        scale = self.node("Sqrt", self.node("Add", mean, "eps"))
        return self.node("Mul", self.node("Div", x, scale), self.weight(name))


def write_gguf(weights: Weights, shape: Shape, path: Path) -> None:
    """GGUF in F32 for llama.cpp. Its rotary embedding pairs neighbours, so the rows of q and k are interleaved."""
    import gguf  # only this form needs it

    tokenizer = build()
    vocabulary = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    tokens = [token for token, _ in vocabulary]
    types = [
        gguf.TokenType.CONTROL
        if token in (USER, ASSISTANT, END)
        else gguf.TokenType.USER_DEFINED
        if token.startswith(("<think", "</think"))
        else gguf.TokenType.NORMAL
        for token in tokens
    ]
    merges = [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    head = shape.hidden_size // shape.num_attention_heads
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("justenough embedded")
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_attention_heads)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_rope_dimension_count(head)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(end_of_sequence(tokenizer))
    writer.add_pad_token_id(end_of_sequence(tokenizer))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"].astype(np.float32))
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"].astype(np.float32))
    for layer in range(shape.num_hidden_layers):
        for theirs, ours in names.items():
            value = weights[f"model.layers.{layer}.{theirs}.weight"].astype(np.float32)
            if ours in ("attn_q", "attn_k"):
                value = value.reshape(shape.num_attention_heads, 2, head // 2, -1).swapaxes(1, 2).reshape(value.shape)
            writer.add_tensor(f"blk.{layer}.{ours}.weight", np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def export(checkpoint: Path, *, name: str, root: Path) -> None:
    """Write all forms of a checkpoint, in their places below the repository's root."""
    model = load(checkpoint)
    weights = hugging_face_weights(model)
    write_hugging_face(weights, model.shape, root / "models" / name)
    write_gguf(weights, model.shape, root / "models" / name / "model.gguf")
    packaged = root / "src" / "justenough" / "toy" / "models"
    write_onnx(weights, model.shape, packaged / f"{name}.onnx")
    build().save(str(packaged / "tokenizer.json"))
    (packaged / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def main() -> None:
    """Export one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="model.pt of a run, or a Hugging Face folder")
    parser.add_argument("--name", default="embedded")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent)
    options = parser.parse_args()
    export(options.checkpoint, name=options.name, root=options.root)


if __name__ == "__main__":
    main()

"""Compiler options for the loops of the transfer step, and instructions that numba lacks. Addresses are in bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, no_type_check

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16  # 32-bit numbers that a vector holds
QUERIES = 8  # multiplied at a time: with two vectors of keys, all products stay in registers

llvm.initialize_native_asmparser()  # for the inline assembly below
_INT, _LONG, _FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
_INTS, _FLOATS = ir.VectorType(_INT, LANES), ir.VectorType(_FLOAT, LANES)

# sums in any order and no NaN, as vector units need; infinities stay infinities
_MATH = {"reassoc", "contract", "arcp", "nsz", "nnan"}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile with numba at the first call, and cache the code on disk."""
    options: dict[str, Any] = {"nogil": True, "fastmath": _MATH, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable folder for compiled code
        return numba.njit(**options)(function)


def multiplies_integers() -> bool:
    """Return whether `multiply_pair` and `multiply_one` run here: they need AVX-512 with VNNI."""
    chosen = numba.config.CPU_NAME or numba.config.CPU_FEATURES  # numba compiles for another CPU
    try:
        return not chosen and bool(llvm.get_host_cpu_features().get("avx512vnni"))
    except RuntimeError:  # unknown on this system
        return False


def _number(value: int) -> ir.Constant:
    return ir.Constant(_LONG, value)


def _pointer(builder: ir.IRBuilder, address: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: ir.IRBuilder, address: Any, kind: ir.Type, align: int = 4) -> Any:
    loaded = builder.load(_pointer(builder, address, kind))
    loaded.align = align
    return loaded


def _splat(builder: ir.IRBuilder, value: Any, kind: ir.VectorType) -> Any:
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.Constant(_INTS, [0] * LANES))


def _multiply(vectors: int) -> Any:
    @intrinsic
    @no_type_check
    def multiply(typing_context, keys, queries, query_bytes, offsets, scales, steps, out, out_bytes):
        """Write coarse scores of `QUERIES` queries with 16 keys, or 32.

        Args:
            keys: of uint8 (16 keys or 2 x 16 keys, steps, 16, 4): key codes + 128.
            queries: of int8 (4 * steps,): the first query's codes; the next ones follow every `query_bytes`.
            offsets: of int32 (QUERIES,): -128 times the sum of each query's codes.
            scales: of float32 (keys,).
            out: of float32 (keys,): (key codes . query codes) * scales; the next queries follow every `out_bytes`.
        """
        signature = types.void(*[types.int64] * 8)

        def generate(context, builder, _signature, values):
            keys, queries, query_bytes, offsets, scales, steps, out, out_bytes = values
            kind = ir.FunctionType(_INTS, [_INTS, _INTS, _INTS])
            starts = [
                _splat(builder, _load(builder, builder.add(offsets, _number(4 * q)), _INT), _INTS)
                for q in range(QUERIES)
            ]
            rows = [builder.add(queries, builder.mul(query_bytes, _number(q))) for q in range(QUERIES)]
            before = builder.block
            loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            step = builder.phi(_LONG)
            step.add_incoming(_number(0), before)
            sums = [[builder.phi(_INTS) for _ in range(vectors)] for _ in range(QUERIES)]
            codes = []
            for v in range(vectors):
                place = builder.add(builder.mul(steps, _number(v)), step)
                address = builder.add(keys, builder.mul(place, _number(64)))
                codes.append(_load(builder, address, _INTS))
            following = builder.add(step, _number(1))
            for q in range(QUERIES):
                address = builder.add(rows[q], builder.mul(step, _number(4)))
                query = _splat(builder, _load(builder, address, _INT), _INTS)
                for v in range(vectors):
                    sums[q][v].add_incoming(starts[q], before)
                    more = builder.asm(
                        kind, "vpdpbusd $3, $2, $0", "=v,0,v,v", [sums[q][v], codes[v], query], side_effect=False
                    )
                    sums[q][v].add_incoming(more, loop)
            step.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)
            builder.position_at_end(done)
            for v in range(vectors):
                scale = _load(builder, builder.add(scales, _number(64 * v)), _FLOATS)
                for q in range(QUERIES):
                    total = sums[q][v].incomings[1][0]
                    score = builder.fmul(builder.sitofp(total, _FLOATS), scale)
                    address = builder.add(out, builder.add(builder.mul(out_bytes, _number(q)), _number(64 * v)))
                    builder.store(score, _pointer(builder, address, _FLOATS)).align = 4
            return context.get_dummy_value()

        return signature, generate

    return multiply


multiply_pair, multiply_one = _multiply(2), _multiply(1)


@intrinsic
@no_type_check
def lane_maxima(typing_context, scores, length, out):
    """Write the maximum of every 16th score from the first, the second, ... one to `out`, float32 (16,).

    There are `length` >= 1 scores in float32; up to 15 values beyond may be read. Lanes without a score are -infinity.
    """
    signature = types.void(types.int64, types.int64, types.int64)

    def generate(context, builder, _signature, values):
        scores, length, out = values

        def larger(a, b):
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        least = ir.Constant(_FLOATS, [float("-inf")] * LANES)
        whole = builder.sub(length, builder.urem(length, _number(LANES)))
        before = builder.block
        loop, last, done = (builder.append_basic_block(name) for name in ("loop", "last", "done"))
        builder.cbranch(builder.icmp_signed(">", whole, _number(0)), loop, last)
        builder.position_at_end(loop)
        at, peaks = builder.phi(_LONG), builder.phi(_FLOATS)
        at.add_incoming(_number(0), before)
        peaks.add_incoming(least, before)
        more = larger(_load(builder, builder.add(scores, builder.mul(at, _number(4))), _FLOATS), peaks)
        following = builder.add(at, _number(LANES))
        at.add_incoming(following, loop)
        peaks.add_incoming(more, loop)
        builder.cbranch(builder.icmp_signed("<", following, whole), loop, last)
        builder.position_at_end(last)
        found = builder.phi(_FLOATS)
        found.add_incoming(least, before)
        found.add_incoming(more, loop)
        rest = builder.trunc(builder.sub(length, whole), _INT)
        inside = builder.icmp_signed("<", ir.Constant(_INTS, list(range(LANES))), _splat(builder, rest, _INTS))
        tail = _load(builder, builder.add(scores, builder.mul(whole, _number(4))), _FLOATS)
        found = larger(builder.select(inside, tail, least), found)
        builder.store(found, _pointer(builder, out, _FLOATS)).align = 4
        builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
@no_type_check
def lanes_reaching(typing_context, values, threshold):
    """Return which of 16 float32 values are not below a threshold (a number), as bits, the lowest for the first."""
    signature = types.int64(types.int64, types.float32)

    def generate(_context, builder, _signature, given):
        values, threshold = given
        reaching = builder.fcmp_ordered(">=", _load(builder, values, _FLOATS), _splat(builder, threshold, _FLOATS))
        return builder.zext(builder.bitcast(reaching, ir.IntType(LANES)), _LONG)

    return signature, generate


@intrinsic
@no_type_check
def prefetch(typing_context, address):
    """Prefetch the 64 bytes around an address."""
    signature = types.void(types.int64)

    def generate(context, builder, _signature, given):
        pointer = _pointer(builder, given[0], ir.IntType(8))
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(function, [pointer, ir.Constant(flag, 0), ir.Constant(flag, 3), ir.Constant(flag, 1)])
        return context.get_dummy_value()

    return signature, generate

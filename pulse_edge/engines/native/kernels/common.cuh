// What the kernels share: the layout of activations, and small arithmetic.
#pragma once
#ifdef EMULATED
#include "cuda_emulation.h"
#else
#include "device.cuh"
#endif

constexpr int MOST_ROWS = 8;  // tokens of a step
constexpr int TILE = 16;      // outputs that a product computes at once, and whose sums are kept

// How a product wants its activations, so that they need no rearrangement when it reads them. Each
// gives the position of element k of a row, and what element k is multiplied by.
//
// A lane multiplies words of 8 int4 or 4 int8 weights. A word's nibbles w0..w7 come out of it as
// pairs (0,4) (1,5) (2,6) (3,7), of which the odd ones stay shifted by 4 bits: their activations
// are divided by 16. A word's bytes come out as (0,2) (1,3).
enum Layout {
  PLAIN = 0,
  INT4 = 1,       // blocks of 128: lane t of a quad takes word j of the t-th 16 bytes
  INT4_FINE = 2,  // blocks of 32 or 64: it takes word t of the j-th 16 bytes
  INT8 = 3,       // blocks of 64 or 128
  INT8_FINE = 4,  // blocks of 32
  FP16 = 5,       // 16 bits: of 32 weights a lane takes 2t, 2t+1 of each 8
};

__device__ __forceinline__ int position(int layout, int k) {
  if (layout == PLAIN) return k;
  if (layout == FP16) return (k & ~31) + (k >> 1 & 3) * 8 + (k >> 3 & 3) * 2 + (k & 1);
  if (layout == INT4 || layout == INT4_FINE) {
    const int e = k & 7, word = (k >> 3) & 15;
    const int place = layout == INT4 ? (word & 3) * 4 + (word >> 2) : word;
    return (k & ~127) + place * 8 + (e & 3) * 2 + (e >> 2);
  }
  const int e = k & 3, word = (k >> 2) & 15;  // of 64 weights
  const int t = layout == INT8 ? word >> 2 : word & 3, j = layout == INT8 ? word & 3 : word >> 2;
  return (k & ~63) + ((j >> 1) * 4 + t) * 8 + (j & 1) * 4 + (e & 1) * 2 + (e >> 1);
}

__device__ __forceinline__ float shift(int layout, int k) {
  return (layout == INT4 || layout == INT4_FINE) && (k & 1) ? 0.0625f : 1.f;
}

__device__ __forceinline__ u32 word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

__device__ __forceinline__ float half_of(const uint4& v, int i) {
  return to_float((u16)(word(v, i >> 1) >> (16 * (i & 1))));
}

__device__ __forceinline__ float low(u32 pair) { return to_float((u16)pair); }
__device__ __forceinline__ float high(u32 pair) { return to_float((u16)(pair >> 16)); }
__device__ __forceinline__ u32 pack(float a, float b) {
  return (u32)to_half(a) | (u32)to_half(b) << 16;
}

template <int LANES>  // a power of 2; lanes of one such group get the same sum
__device__ __forceinline__ float sum_over(float value) {
#pragma unroll
  for (int o = LANES / 2; o; o >>= 1) value += __shfl_xor_sync(~0u, value, o);
  return value;
}

// The largest logit so far. `index` is -1 where a logit was not finite.
struct Best {
  float value;
  int index;
};

__device__ __forceinline__ Best better(Best a, Best b) {
  if (a.value != b.value) return a.value > b.value ? a : b;
  return a.index < b.index ? a : b;  // -1, or the first
}

// A logit as a candidate: NaN and +infinity stand above all numbers.
__device__ __forceinline__ Best candidate(float value, int index) {
  if (value < infinity()) return {value, index};
  return {infinity(), -1};
}

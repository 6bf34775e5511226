// The ends of a step: rows of the embedding table become activations, and logits become tokens.
#include "common.cuh"

#ifndef THREADS
#define THREADS 256
#endif

struct Embed {
  const u16* table;        // [table rows][hidden], features of a page among them
  const long long* numbers;  // [rows] of the table
  const u16* gain;         // [hidden] of the first RMSNorm
  u16* residual;           // [rows][hidden]
  u16* x;                  // [rows][hidden] in `layout`
  float* sums;             // [rows][hidden / 16] of x
  float* squares;          // [rows][hidden / 16] of the residual
  int hidden;
  int layout;
};

// A CTA a row; a thread 16 elements.
//
// It lets the next kernel start only after the last one of the step before has ended. So no kernel
// runs beside one of another step, and the KV cache of former steps may be read without waiting.
extern "C" __global__ void __launch_bounds__(THREADS) embed(const Embed p) {
  wait_for_previous_kernel();
  let_next_kernel_start();
  const int row = blockIdx.x;
  const u64 start = (u64)row * p.hidden;
  const uint4* from = (const uint4*)(p.table + p.numbers[row] * (u64)p.hidden);
  for (int tile = threadIdx.x; tile < p.hidden / TILE; tile += THREADS) {
    float sum = 0, squares = 0;
    for (int part = 0; part < 2; part++) {
      const uint4 v = load_written(from + tile * 2 + part);
      const uint4 gains = load_constant((const uint4*)p.gain + tile * 2 + part);
      ((uint4*)(p.residual + start))[tile * 2 + part] = v;
      for (int i = 0; i < 8; i++) {
        const int k = tile * TILE + part * 8 + i;
        const float value = half_of(v, i);
        const float x = to_float(to_half(value * half_of(gains, i)));
        squares += value * value;
        sum += x;
        p.x[start + position(p.layout, k)] = to_half(x * shift(p.layout, k));
      }
    }
    p.sums[(u64)row * (p.hidden / TILE) + tile] = sum;
    p.squares[(u64)row * (p.hidden / TILE) + tile] = squares;
  }
}

struct Choose {
  const Best* best;   // [count][8]
  long long* tokens;  // [rows]; -1 where the largest logit is not finite
  int count;
};

// A CTA of one warp a row.
extern "C" __global__ void __launch_bounds__(32) choose(const Choose p) {
  let_next_kernel_start();
  wait_for_previous_kernel();
  const int row = blockIdx.x;
  Best best = {-infinity(), 0x7fffffff};
  for (int i = threadIdx.x; i < p.count; i += 32) {
    const Best* from = p.best + i * MOST_ROWS + row;
    best = better(best, {load_written(&from->value), (int)load_written((const u32*)&from->index)});
  }
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    const float value = __shfl_xor_sync(~0u, best.value, o);
    const int index = __shfl_xor_sync(~0u, best.index, o);
    best = better(best, {value, index});
  }
  if (threadIdx.x == 0) p.tokens[row] = best.value == -infinity() ? -1 : best.index;
}

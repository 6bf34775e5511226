// y = W x for weights of 4, 8 or 16 bits in the bundle's own layout and up to 8 rows of fp16
// activations.
//
// A CTA computes sets of TILES tiles of 16 outputs: set blockIdx.x, then every gridDim.x-th. Its
// warps split K in slots. RMSNorm's factor of a row applies to the sums, so no barrier waits for it.
// blocks.cuh and halves.cuh say how the weights are stored and multiplied.
//
// Weights reach a warp through a ring of STAGES slots of its own in shared memory, by asynchronous
// copies that begin before the kernel before has ended: weights do not depend on it.
#include "common.cuh"

#ifndef K
#define K 4096
#endif
#ifndef BITS
#define BITS 4
#endif
#ifndef BLOCK  // weights that share a scale, unless they have 16 bits
#define BLOCK 128
#endif
#ifndef ROWS  // 1, or 8 for 2 to 8
#define ROWS 1
#endif
#ifndef WARPS
#define WARPS 8
#endif
#ifndef STAGES
#define STAGES 4
#endif
#ifndef MOST_SLOT  // weights of a row that a slot of 4 or 8 bits has at most: 128 or 256
#define MOST_SLOT 256
#endif
#ifndef TILES
#define TILES 1
#endif
#ifndef CTAS  // that must fit on a multiprocessor
#define CTAS 1
#endif
#ifndef EPILOGUE
#define EPILOGUE 0
#endif

enum Epilogue {
  STORE = 0,     // y
  RESIDUAL = 1,  // y + residual, and activations of the next product
  GATED = 2,     // silu(first matrix) * second matrix, as activations of the next product
  LOGITS = 3,    // fp32 and the best of them
};

struct Gemv {
  const uint4* weights[2];  // [n][K] of 4 or 8 bits, [K][n] of 16; the second only if GATED
  const u16* scales[2];     // [n][K / BLOCK], if they have 4 or 8 bits
  const u16* x;             // [rows][K] in the layout of these weights
  const float* x_sums;      // [rows][K / 16]: sums of 16 activations
  const float* x_squares;   // [rows][K / 16]: what RMSNorm divides by; null if there is none
  const u16* residual;      // [rows][n]
  u16* y;                   // [rows][n]; may be the residual
  const u16* gain;          // [n] of the next RMSNorm; null if there is none
  u16* next_x;              // [rows][n] in next_layout
  float* next_sums;         // [rows][n / 16]
  float* next_squares;      // [rows][n / 16]
  float* logits;            // [rows][n]
  Best* best;               // [gridDim.x][8]
  int n;
  int rows;
  int next_layout;
  float x_factor;  // of all activations; undoes a power of 2 in the norm's gains
  float epsilon;
};

#if BITS == 16
#include "halves.cuh"
#else
#include "blocks.cuh"
#endif

constexpr int SLOTS = K / SLOT;
constexpr int MOST = (SLOTS + WARPS - 1) / WARPS;  // slots of a warp
constexpr int THREADS = 32 * WARPS, OUTPUTS = TILE * ROWS;
constexpr int FRAGMENTS = SLOT / 32;  // uint4 of activations that a lane reads of a slot
constexpr bool KEPT = ROWS > 1 && MOST * FRAGMENTS <= 16;  // activations stay in registers
static_assert(ROWS == 1 || ROWS == MOST_ROWS, "unsupported ROWS");
static_assert(OUTPUTS <= THREADS, "too few warps");
static_assert(EPILOGUE != GATED || TILES == 2, "a tile of each matrix");

struct Shared {
  Slot ring[WARPS][STAGES];
  float partial[2][WARPS][TILES][OUTPUTS];  // sums of the warps, for two sets in turn
  float zero[ZEROS];                        // see blocks.cuh
  float factor[MOST_ROWS];                  // RMSNorm's
  uint4 x[ROWS == 1 ? K / 8 : 1];
};
#ifdef SHARED_BYTES
static_assert(sizeof(Shared) <= SHARED_BYTES, "the launch gives too little shared memory");
#endif

// Begins to copy the next slot, if there is one, and closes the group in any case: waits count them.
__device__ __forceinline__ void copy_next(Ring& r, Slot& to, const Gemv& p, int sets, int first,
                                          int count, int lane) {
  if (r.set < sets) {
    copy_slot(r, to, first, lane);
    if (++r.index == count) begin_set(r, p, r.set + gridDim.x, first, lane);
  }
  close_copy_group();
}

// Fragments of a slot of the only row, in shared memory.
struct SharedFragments {
  const uint4* first;
  __device__ __forceinline__ uint4 operator[](int i) const { return first[i * 4]; }
};

// Fragments of a slot, straight from global memory: row g of the activations, 0 beyond `rows`.
__device__ __forceinline__ void load_fragments(uint4 (&x)[FRAGMENTS], const Gemv& p, int slot,
                                               int g, int t) {
  const uint4* from = (const uint4*)(p.x + (u64)g * K) + slot * (SLOT / 8) + t;
#pragma unroll
  for (int i = 0; i < FRAGMENTS; i++) {
    x[i] = make_uint4(0, 0, 0, 0);
    if (g < p.rows) x[i] = load_written(from + i * 4);
  }
}

// This warp's part of s.zero, and of s.x if there is one row. Only this warp reads them.
__device__ __forceinline__ void prepare_slots(Shared& s, const Gemv& p, int first, int count,
                                              int lane) {
  if (ROWS == 1) {
    for (int i = lane; i < count * (SLOT / 8); i += 32) {
      const int at = first * (SLOT / 8) + i;
      s.x[at] = load_written((const uint4*)p.x + at);
    }
  }
  prepare_zero(s.zero, p, first, count, lane);
  __syncwarp();
}

// RMSNorm's factors and all else that a row's sums are multiplied by. Read after the barrier of the
// first set.
__device__ __forceinline__ void prepare_factors(Shared& s, const Gemv& p, int warp, int lane) {
  for (int row = warp; row < ROWS; row += WARPS) {
    float factor = p.x_factor / UNIT;
    if (p.x_squares && row < p.rows) {
      float squares = 0;
      for (int i = lane; i < K / TILE; i += 32) {
        squares += load_written(p.x_squares + row * (K / TILE) + i);
      }
      factor *= rsqrtf(sum_over<32>(squares) / K + p.epsilon);
    }
    if (lane == 0) s.factor[row] = factor;
  }
}

// Writes 16 activations of the next product, one a lane, and their sum.
__device__ __forceinline__ void hand_on(const Gemv& p, float value, int row, int output,
                                        bool valid) {
  const u16 half = to_half(value);
  const float sum = sum_over<TILE>(to_float(half));
  if (!valid) return;
  const u64 start = (u64)row * p.n;
  const int k = output;
  p.next_x[start + position(p.next_layout, k)] =
      to_half(to_float(half) * shift(p.next_layout, k));
  if ((output & 15) == 0) p.next_sums[(u64)row * (p.n / TILE) + output / TILE] = sum;
}

__device__ __forceinline__ void finish_residual(const Gemv& p, float value, int row, int output,
                                                bool valid) {
  const u16 half = to_half(value);
  value = to_float(half);
  const float squares = sum_over<TILE>(value * value);
  if (valid) {
    p.y[(u64)row * p.n + output] = half;
    if ((output & 15) == 0) p.next_squares[(u64)row * (p.n / TILE) + output / TILE] = squares;
  }
  hand_on(p, value * to_float(load_constant(p.gain + output)), row, output, valid);
}

extern "C" __global__ void __launch_bounds__(THREADS, CTAS) gemv(const Gemv p) {
  SHARED_MEMORY(memory);
  Shared& s = *(Shared*)memory;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int first = warp * SLOTS / WARPS;  // this warp's slots
  const int count = (warp + 1) * SLOTS / WARPS - first;
  const int sets = p.n / (EPILOGUE == GATED ? TILE : TILE * TILES);

  Ring ring;
  begin_set(ring, p, count ? (int)blockIdx.x : sets, first, lane);  // a small K has idle warps
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) {
    copy_next(ring, s.ring[warp][i], p, sets, first, count, lane);
  }
  let_next_kernel_start();
  wait_for_previous_kernel();

  uint4 kept[KEPT ? MOST : 1][FRAGMENTS];
  if (ROWS > 1) {
#pragma unroll
    for (int i = 0; i < (KEPT ? MOST : 1); i++) {
      if (i < count) load_fragments(kept[i], p, first + i, g, t);
    }
  }
  prepare_factors(s, p, warp, lane);
  prepare_slots(s, p, first, count, lane);

  const int row = threadIdx.x / TILE, column = threadIdx.x % TILE;  // of an output
  const bool finishes = warp < (OUTPUTS + 31) / 32;
  const bool valid = threadIdx.x < OUTPUTS && row < p.rows;
  Best best = {-infinity(), p.n};
  int turn = 0, stage = 0;
  for (int set = blockIdx.x; set < sets; set += gridDim.x) {
    float residual[TILES] = {};  // loaded here, used at the end of the set
    if (EPILOGUE == RESIDUAL && valid) {
#pragma unroll
      for (int i = 0; i < TILES; i++) {
        const int output = (set * TILES + i) * TILE + column;
        residual[i] = to_float(load_written(p.residual + (u64)row * p.n + output));
      }
    }
    float sums[TILES][4] = {};
    auto next_slot = [&]() -> const Slot& {
      wait_for_copies<STAGES - 2>();
      __syncwarp();  // lanes read what others copied, and have read the slot that is copied to
      copy_next(ring, s.ring[warp][stage == 0 ? STAGES - 1 : stage - 1], p, sets, first, count,
                lane);
      const Slot& slot = s.ring[warp][stage];
      stage = stage + 1 == STAGES ? 0 : stage + 1;
      return slot;
    };
    if (KEPT) {
#pragma unroll
      for (int i = 0; i < (KEPT ? MOST : 1); i++) {
        if (i < count) multiply(sums, next_slot(), kept[i], s.zero, first + i, lane);
      }
    } else if (ROWS > 1) {
#pragma unroll 1
      for (int i = 0; i < count; i++) {
        uint4 ahead[FRAGMENTS];
        load_fragments(ahead, p, first + (i + 1 == count ? 0 : i + 1), g, t);
        multiply(sums, next_slot(), kept[0], s.zero, first + i, lane);
#pragma unroll
        for (int k = 0; k < FRAGMENTS; k++) kept[0][k] = ahead[k];
      }
    } else {
#pragma unroll 1
      for (int i = 0; i < count; i++) {
        const SharedFragments x = {s.x + (first + i) * (SLOT / 8) + t};
        multiply(sums, next_slot(), x, s.zero, first + i, lane);
      }
    }
#pragma unroll
    for (int i = 0; i < TILES; i++) {
      float* partial = s.partial[turn][warp][i];
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const int column_of = 2 * t + (e & 1);
        if (column_of < ROWS) partial[column_of * TILE + g + (e & 2 ? 8 : 0)] = sums[i][e];
      }
    }
    __syncthreads();  // one a set: the next set writes the other half of `partial`
    if (finishes) {
      const int at = min((int)threadIdx.x, OUTPUTS - 1);
      float total[TILES];
#pragma unroll
      for (int i = 0; i < TILES; i++) {
        total[i] = 0;
        for (int k = 0; k < WARPS; k++) total[i] += s.partial[turn][k][i][at];
        total[i] *= s.factor[at / TILE];
      }
      if (EPILOGUE == GATED) {
        const float silu = total[0] / (1.f + __expf(-total[0]));
        hand_on(p, silu * total[TILES - 1], row, set * TILE + column, valid);
      } else {
#pragma unroll
        for (int i = 0; i < TILES; i++) {
          const int output = (set * TILES + i) * TILE + column;
          if (EPILOGUE == STORE && valid) p.y[(u64)row * p.n + output] = to_half(total[i]);
          if (EPILOGUE == RESIDUAL) finish_residual(p, total[i] + residual[i], row, output, valid);
          if (EPILOGUE == LOGITS && valid) {
            p.logits[(u64)row * p.n + output] = total[i];
            best = better(best, candidate(total[i], output));
          }
        }
      }
    }
    turn ^= 1;
  }
  if (EPILOGUE == LOGITS && finishes) {
#pragma unroll
    for (int o = TILE / 2; o; o >>= 1) {
      const float value = __shfl_xor_sync(~0u, best.value, o);
      const int index = __shfl_xor_sync(~0u, best.index, o);
      best = better(best, {value, index});
    }
    if (valid && column == 0) p.best[blockIdx.x * MOST_ROWS + row] = best;
  }
}

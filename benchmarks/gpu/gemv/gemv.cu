// y = W x for int4 weights in MatMulNBits' layout and up to 8 rows of fp16 activations.
//
//   w       [n][K/128][64] bytes: blocks of 128 weights along K, low nibble first, zero point 8
//   scales  [n][K/128] fp16
//   x       [ROWS][K] fp16
//   y       [ROWS][n] fp16; n is a multiple of 16
//
// NORM=1 applies RMSNorm to x first; RESIDUAL=1 adds residual [ROWS][n] to y.
//
// A CTA computes tiles of 16 outputs: tile blockIdx.x, then every gridDim.x-th. Its warps split K
// in pairs of blocks (256 weights), which are also the unit of loading: 128 contiguous bytes of
// each of 16 rows. Tensor cores multiply the nibbles as fp16 subnormals (q * 2^-24), which needs no
// conversion; fp32 sums a block, then its scale applies.
//
// LOADS chooses how weights reach a warp. All variants start to load before they look at x, because
// weights do not depend on the kernel before.
//   0  registers: every lane loads what it multiplies, a tile at a time
//   1  cp.async: every lane copies what it multiplies into its own slots of shared memory, a ring
//      of STAGES pairs
//   2  bulk copies (sm_90): one thread copies a row of the tile, STAGES tiles in a ring
#ifndef K
#define K 4096
#endif
#ifndef WARPS
#define WARPS 8
#endif
#ifndef ROWS
#define ROWS 1
#endif
#ifndef NORM
#define NORM 1
#endif
#ifndef RESIDUAL
#define RESIDUAL 0
#endif
#ifndef LOADS
#define LOADS 1
#endif
#ifndef STAGES
#define STAGES 4
#endif
#ifndef CTAS  // that fit on an SM
#define CTAS 1
#endif

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef EMULATED
#include "cuda_shim.h"
#else

#define SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]

__device__ __forceinline__ float to_float(u16 half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}

__device__ __forceinline__ u16 to_half(float value) {
  u16 half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}

// d += a b: a is 16 x 16 weights, b is 16 x 8 activations.
__device__ __forceinline__ void mma(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a0), "r"(a1), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a2), "r"(a3), "r"(b1));
#endif
}

// Constants of the model: read once, kept out of L1.
__device__ __forceinline__ uint4 load_weights(const uint4* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}

__device__ __forceinline__ u32 load_scales(const u32* from) {
  u32 v;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
}

// What the kernel before wrote. Not .nc: the compiler must not move it above
// wait_for_previous_kernel.
__device__ __forceinline__ uint4 load_activations(const uint4* from) {
  uint4 v;
  asm volatile("ld.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from) : "memory");
  return v;
}

__device__ __forceinline__ u16 load_activation(const u16* from) {
  u16 v;
  asm volatile("ld.global.u16 %0, [%1];" : "=h"(v) : "l"(from) : "memory");
  return v;
}

// Programmatic dependent launch. Both are no-ops for a kernel that was launched without that
// attribute.
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Returns when all kernels before have ended. Every kernel calls it, so that this holds through a
// chain of kernels.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#if LOADS > 0
__device__ __forceinline__ u32 shared_address(const void* p) {
  return (u32)__cvta_generic_to_shared(p);
}
#endif

#if LOADS == 1
__device__ __forceinline__ void copy16(uint4* to, const uint4* from) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
               :: "r"(shared_address(to)), "l"(from) : "memory");
}

__device__ __forceinline__ void copy4(u32* to, const u32* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;"
               :: "r"(shared_address(to)), "l"(from) : "memory");
}

__device__ __forceinline__ void close_copy_group() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Returns when at most `groups` of this thread's copy groups are under way.
template <int groups>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" :: "n"(groups) : "memory");
}
#endif

#if LOADS == 2
__device__ __forceinline__ void barrier_init(u64* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(shared_address(barrier)) : "memory");
}

// Makes the initialized barriers visible to bulk copies.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// The barrier's phase ends when `bytes` more have been copied.
__device__ __forceinline__ void barrier_expect(u64* barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :: "r"(shared_address(barrier)), "r"(bytes) : "memory");
}

__device__ __forceinline__ void copy_bulk(void* to, const void* from, u32 bytes, u64* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1], %2, [%3];"
               :: "r"(shared_address(to)), "l"(from), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}

// Returns when the phase has ended. Gives up after a bounded number of tries, because a wrong
// result is found by the check of the output, and a kernel that hangs would take the whole run with
// it.
__device__ __forceinline__ void barrier_wait(u64* barrier, u32 parity) {
  u32 done = 0;
  for (int tries = 0; !done && tries < (1 << 16); tries++) {
    asm volatile("{\n\t.reg .pred p;\n\t"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2, %3;\n\t"
                 "selp.u32 %0, 1, 0, p;\n\t}"
                 : "=r"(done) : "r"(shared_address(barrier)), "r"(parity), "r"(1000u) : "memory");
  }
}
#endif
#endif  // EMULATED

constexpr int BLOCK = 128, BLOCKS = K / BLOCK, PAIRS = BLOCKS / 2;
constexpr int TILE = 16;                                // outputs
constexpr int MOST = (PAIRS + WARPS - 1) / WARPS;       // pairs of a warp
constexpr int ROW = K / 32;                             // uint4 of a row of weights
constexpr int THREADS = 32 * WARPS, OUTPUTS = TILE * ROWS;
constexpr float SUBNORMAL = 5.9604645e-8f;  // 2^-24: fp16 with the bits of the integer 1
constexpr float ZERO_POINT = 8.f;
static_assert(K % (2 * BLOCK) == 0 && WARPS <= PAIRS, "unsupported K or WARPS");
static_assert(ROWS <= 8 && OUTPUTS <= THREADS, "unsupported ROWS");

// Dynamic shared memory. x is in the order in which lanes read it: [block][word j][row][t], where t
// is the lane of a quad and j the word of its 16 bytes of weights. A word of 8 weights w0..w7
// yields nibble pairs (0,4) (1,5) (2,6) (3,7), of which the odd ones stay shifted by 4 bits, and
// their activations are divided by 16.
struct Activations {
  uint4 x[BLOCKS * 4 * ROWS * 4];
  float zero[BLOCKS * ROWS];            // what the zero point adds to a block's sum
  float partial[2][WARPS][OUTPUTS];     // sums of the warps, for two tiles in turn
};

#if LOADS == 1
struct Shared {
  // [block 0 row g, block 0 row g+8, block 1 row g, block 1 row g+8][lane]
  uint4 weights[WARPS][STAGES][4][32];
  u32 scales[WARPS][STAGES][2][32];  // [row g, row g+8][lane]: two fp16, of both blocks
  Activations a;
};
#elif LOADS == 2
constexpr int STRIDE = ROW + 4;  // uint4; 64 bytes more than a row: 8 lanes read from all banks
struct Shared {
  uint4 weights[STAGES][TILE * STRIDE];
  u32 scales[STAGES][TILE * PAIRS];
  u64 ready[STAGES];
  u64 pad;
  Activations a;
};
#else
struct Shared {
  Activations a;
};
#endif
static_assert(sizeof(Shared) <= SHARED_BYTES, "the launch gives too little shared memory");

__device__ __forceinline__ u32 word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// Adds a block to sums[4]: row g of columns 2t and 2t+1, row g+8 of the same. A column is a row of
// activations.
//
// Lane 4 g + t has 16 bytes and the scale of the tile's rows g and g+8. `x` is column g in s.a.x;
// columns past ROWS repeat the last one, and nobody looks at their sums. `zero` is column 0 in
// s.a.zero.
__device__ __forceinline__ void multiply(float (&sums)[4], const uint4& q0, const uint4& q8,
                                         u16 scale0, u16 scale8, const uint4* x,
                                         const float* zero, int t) {
  float d[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};  // two chains, so that one can wait for its product
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const uint4 b = x[j * ROWS * 4];
    u32 a0 = word(q0, j), a8 = word(q8, j);
    mma(d[0], a0 & 0x000f000fu, a8 & 0x000f000fu, a0 & 0x00f000f0u, a8 & 0x00f000f0u, b.x, b.y);
    a0 >>= 8;
    a8 >>= 8;
    mma(d[1], a0 & 0x000f000fu, a8 & 0x000f000fu, a0 & 0x00f000f0u, a8 & 0x00f000f0u, b.z, b.w);
  }
  const float zero0 = zero[min(2 * t, ROWS - 1)], zero1 = zero[min(2 * t + 1, ROWS - 1)];
  sums[0] += (d[0][0] + d[1][0] - zero0) * to_float(scale0);
  sums[2] += (d[0][2] + d[1][2] - zero0) * to_float(scale8);
  if (ROWS > 1) {
    sums[1] += (d[0][1] + d[1][1] - zero1) * to_float(scale0);
    sums[3] += (d[0][3] + d[1][3] - zero1) * to_float(scale8);
  }
}

__device__ __forceinline__ float half_of(const uint4& v, int i) {
  return to_float((u16)(word(v, i >> 1) >> (16 * (i & 1))));
}

// Fills a.x and a.zero for this warp's pairs; only this warp reads them. A lane takes one word of 8
// activations a pair.
__device__ __forceinline__ void prepare_activations(Activations& a, const u16* x,
                                                    const uint4 (&norm)[MOST], int first,
                                                    int count, int warp, int lane) {
  const uint4* words = (const uint4*)x + first * 32 + lane;
#if NORM
#pragma unroll
  for (int row = 0; row < ROWS; row++) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < MOST; i++) {
      if (i < count) {
        const uint4 v = load_activations(words + row * (K / 8) + i * 32);
#pragma unroll
        for (int k = 0; k < 8; k++) squares += half_of(v, k) * half_of(v, k);
      }
    }
    for (int o = 16; o; o >>= 1) squares += __shfl_xor_sync(~0u, squares, o);
    if (lane == 0) a.partial[1][warp][row] = squares;  // partial[0] is the first that a tile writes
  }
  __syncthreads();  // every warp has its part of the squares
#endif
  const int t = (lane & 15) >> 2, j = lane & 3;
#pragma unroll 1
  for (int row = 0; row < ROWS; row++) {
#if NORM
    float squares = 0;
    for (int i = 0; i < WARPS; i++) squares += a.partial[1][i][row];
    const float scale = rsqrtf(squares / K + 1e-5f);
#endif
#pragma unroll
    for (int i = 0; i < MOST; i++) {
      if (i < count) {
        const int block = 2 * (first + i) + (lane >> 4);
        const uint4 v = load_activations(words + row * (K / 8) + i * 32);
        float f[8], sum = 0;
#pragma unroll
        for (int k = 0; k < 8; k++) {
          f[k] = half_of(v, k);
#if NORM
          f[k] = to_float(to_half(f[k] * scale)) * half_of(norm[i], k);
#endif
          f[k] = to_float(to_half(f[k]));  // the sum must be of what the tensor cores multiply
          sum += f[k];
        }
        u32 out[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
          const float shift = k & 1 ? 0.0625f : 1.f;
          out[k] = (u32)to_half(f[k] * shift) | (u32)to_half(f[k + 4] * shift) << 16;
        }
        a.x[((block * 4 + j) * ROWS + row) * 4 + t] = make_uint4(out[0], out[1], out[2], out[3]);
        // Over the 16 words of a block.
        for (int o = 8; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
        if ((lane & 15) == 0) a.zero[block * ROWS + row] = ZERO_POINT * SUBNORMAL * sum;
      }
    }
  }
  __syncwarp();
}

extern "C" __global__ void __launch_bounds__(THREADS, CTAS)
gemv(const uint4* w, const u32* scales, const u16* x, const uint4* norm, const u16* residual,
     u16* y, int n) {
  SHARED_MEMORY(memory);
  Shared& s = *(Shared*)memory;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int first = warp * PAIRS / WARPS;  // this warp's pairs
  const int count = (warp + 1) * PAIRS / WARPS - first;
  const int tiles = n / TILE, step = gridDim.x;

  constexpr u64 below = 8;  // a lane's second row

#if LOADS == 0
  uint4 q[MOST][4];     // [block 0 row g, block 0 row g+8, block 1 row g, block 1 row g+8]
  u32 scale[MOST][2];   // [row g, row g+8]: two fp16, of both blocks
  auto load_tile = [&](int tile) {
    const uint4* from = w + ((u64)tile * TILE + g) * ROW + first * 8 + t;
    const u32* from_scales = scales + ((u64)tile * TILE + g) * PAIRS + first;
#pragma unroll
    for (int i = 0; i < MOST; i++) {
      if (i < count) {
        for (int k = 0; k < 4; k++) {
          q[i][k] = load_weights(from + i * 8 + (k >> 1) * 4 + (k & 1) * below * ROW);
        }
        for (int k = 0; k < 2; k++) scale[i][k] = load_scales(from_scales + i + k * below * PAIRS);
      }
    }
  };
  if ((int)blockIdx.x < tiles) load_tile(blockIdx.x);
#elif LOADS == 1
  // The loading end of the ring runs STAGES - 1 pairs ahead of the multiplying end, across tiles. A
  // lane reads only what it copied itself, so waiting for its own copies is all the synchronization
  // there is.
  const uint4* from = w + ((u64)blockIdx.x * TILE + g) * ROW + first * 8 + t;
  const u32* from_scales = scales + ((u64)blockIdx.x * TILE + g) * PAIRS + first;
  int load_tile = blockIdx.x, load_index = 0;
  auto load_next = [&](int load_slot) {
    if (load_tile < tiles) {
      uint4* to = &s.weights[warp][load_slot][0][lane];
      u32* to_scales = &s.scales[warp][load_slot][0][lane];
      for (int k = 0; k < 4; k++) copy16(to + k * 32, from + (k >> 1) * 4 + (k & 1) * below * ROW);
      for (int k = 0; k < 2; k++) copy4(to_scales + k * 32, from_scales + k * below * PAIRS);
      from += 8;
      from_scales += 1;
      if (++load_index == count) {
        from += (u64)step * TILE * ROW - count * 8;
        from_scales += (u64)step * TILE * PAIRS - count;
        load_index = 0;
        load_tile += step;
      }
    }
    close_copy_group();  // also an empty one: the wait counts groups
  };
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) load_next(i);
  int slot = 0;
#else
  constexpr u32 row_bytes = K / 2, scale_bytes = TILE * PAIRS * 4;
  auto load_tile = [&](int tile, int stage) {  // by all lanes of one warp
    if (tile >= tiles) return;
    if (lane == 0) barrier_expect(&s.ready[stage], TILE * row_bytes + scale_bytes);
    __syncwarp();
    if (lane < TILE) {
      const uint4* from = w + ((u64)tile * TILE + lane) * ROW;
      copy_bulk(&s.weights[stage][lane * STRIDE], from, row_bytes, &s.ready[stage]);
    } else if (lane == TILE) {
      copy_bulk(s.scales[stage], scales + (u64)tile * TILE * PAIRS, scale_bytes, &s.ready[stage]);
    }
  };
  if (warp == 0) {
    if (lane == 0) {
      for (int i = 0; i < STAGES; i++) barrier_init(&s.ready[i]);
      publish_barriers();
    }
    __syncwarp();
    for (int i = 0; i < STAGES; i++) load_tile(blockIdx.x + i * step, i);
  }
  int slot = 0;
  u32 parity = 0;
#endif

  uint4 gains[MOST];  // of RMSNorm: constants, so loaded before the wait
#if NORM
#pragma unroll
  for (int i = 0; i < MOST; i++) {
    if (i < count) gains[i] = load_weights(norm + (first + i) * 32 + lane);
  }
#endif
  let_next_kernel_start();
  wait_for_previous_kernel();
  prepare_activations(s.a, x, gains, first, count, warp, lane);
#if LOADS == 2
  __syncthreads();  // the barriers are initialized
#endif

  const uint4* x_pairs = s.a.x + (first * 8 * ROWS + min(g, ROWS - 1)) * 4 + t;
  const float* zeros = s.a.zero + first * 2 * ROWS;
  int turn = 0;
  for (int tile = blockIdx.x; tile < tiles; tile += step) {
    const int output = tile * TILE + (threadIdx.x & 15), column = threadIdx.x >> 4;
    float carried = 0;  // loaded here, used at the end of the tile
    if (RESIDUAL && threadIdx.x < OUTPUTS) {
      carried = to_float(load_activation(residual + (u64)column * n + output));
    }
    float sums[4] = {0, 0, 0, 0};
#if LOADS == 0
#pragma unroll
    for (int i = 0; i < MOST; i++) {
      if (i < count) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          multiply(sums, q[i][2 * half], q[i][2 * half + 1], scale[i][0] >> (16 * half),
                   scale[i][1] >> (16 * half), x_pairs + (2 * i + half) * 16 * ROWS,
                   zeros + (2 * i + half) * ROWS, t);
        }
      }
    }
    if (tile + step < tiles) load_tile(tile + step);
#elif LOADS == 1
#pragma unroll 1
    for (int i = 0; i < count; i++) {
      wait_for_copies<STAGES - 2>();
      load_next(slot == 0 ? STAGES - 1 : slot - 1);  // into the slot that was multiplied last
      const uint4* q = &s.weights[warp][slot][0][lane];
      const u16* scale = (const u16*)&s.scales[warp][slot][0][lane];
#pragma unroll 1
      for (int half = 0; half < 2; half++) {
        multiply(sums, q[half * 64], q[half * 64 + 32], scale[half], scale[half + 64],
                 x_pairs + (2 * i + half) * 16 * ROWS, zeros + (2 * i + half) * ROWS, t);
      }
      slot = slot + 1 == STAGES ? 0 : slot + 1;
    }
#else
    barrier_wait(&s.ready[slot], parity);
    const uint4* q = &s.weights[slot][g * STRIDE + first * 8 + t];
    const u16* scale = (const u16*)&s.scales[slot][g * PAIRS + first];
#pragma unroll 1
    for (int i = 0; i < 2 * count; i++) {
      multiply(sums, q[i * 4], q[i * 4 + below * STRIDE], scale[i], scale[i + below * BLOCKS],
               x_pairs + i * 16 * ROWS, zeros + i * ROWS, t);
    }
#endif
    float* partial = s.a.partial[turn][warp];
    if (2 * t < ROWS) {
      partial[2 * t * TILE + g] = sums[0];
      partial[2 * t * TILE + g + 8] = sums[2];
    }
    if (2 * t + 1 < ROWS) {
      partial[(2 * t + 1) * TILE + g] = sums[1];
      partial[(2 * t + 1) * TILE + g + 8] = sums[3];
    }
    __syncthreads();  // one a tile: the next tile writes the other half of `partial`
    if (threadIdx.x < OUTPUTS) {
      float sum = 0;
      for (int i = 0; i < WARPS; i++) sum += s.a.partial[turn][i][threadIdx.x];
      y[(u64)column * n + output] = to_half(sum * (1 / SUBNORMAL) + carried);
    }
    turn ^= 1;
#if LOADS == 2
    if (warp == 0) load_tile(tile + STAGES * step, slot);  // all warps have read the slot
    slot = slot + 1 == STAGES ? 0 : slot + 1;
    parity ^= slot == 0;
#endif
  }
}

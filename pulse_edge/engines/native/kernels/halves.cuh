// Weights of 16 bits as MatMul has them: [K][n] fp16.
//
// A slot is 64 weights of each of TILES * 16 outputs, of which a row of K holds TILES * 32 bytes side
// by side. Tensor cores want 16 outputs by 16 weights with the weights side by side: ldmatrix
// transposes.
#pragma once

constexpr int SLOT = 64;  // weights of an output
constexpr int CHUNKS = 2 * TILES;  // of 8 outputs, 16 bytes
constexpr int ZEROS = 1;
constexpr float UNIT = 1;  // of the sums
static_assert(K % SLOT == 0, "unsupported K");
static_assert(TILES == 2, "unsupported TILES");

struct Slot {
  uint4 weights[SLOT * CHUNKS];
};

// Where chunk c of a row lies, so that 8 rows' c-th chunks lie in different banks.
__device__ __forceinline__ int place(int row, int c) {
  return row * CHUNKS + (c ^ (row >> 1 & 3));
}

// What a lane copies next: chunk lane % 4 of every 8th row, from row lane / 4 on.
struct Ring {
  const u16* weights;
  u64 width;  // of a row of K
  int set, index;
};

__device__ __forceinline__ void begin_set(Ring& r, const Gemv& p, int set, int first, int lane) {
  const int chunk = lane % CHUNKS, matrix = EPILOGUE == GATED ? chunk / 2 : 0;
  const int output = EPILOGUE == GATED ? set * TILE + chunk % 2 * 8 : set * TILE * TILES + chunk * 8;
  r.set = set;
  r.index = 0;
  r.width = p.n;
  r.weights = (const u16*)p.weights[matrix] + (u64)(first * SLOT + lane / CHUNKS) * p.n + output;
}

// Begins to copy the slot that the ring is at.
__device__ __forceinline__ void copy_slot(Ring& r, Slot& to, int first, int lane) {
#pragma unroll
  for (int i = 0; i < SLOT; i += 32 / CHUNKS) {
    copy_async<16>(&to.weights[place(i + lane / CHUNKS, lane % CHUNKS)], r.weights + i * r.width);
  }
  r.weights += SLOT * r.width;
}

// Adds slot `number` to the sums of each tile: [g][2t], [g][2t+1], [g+8][2t], [g+8][2t+1].
template <class Fragments>
__device__ __forceinline__ void multiply(float (&sums)[TILES][4], const Slot& slot,
                                         const Fragments& x, const float* zero, int number,
                                         int lane) {
#pragma unroll
  for (int step = 0; step < SLOT / 16; step++) {
    const uint4 v = x[step / 2];
#pragma unroll
    for (int i = 0; i < TILES; i++) {
      // Matrices: outputs 0-7 and 8-15 of weights 0-7, then of weights 8-15.
      u32 a[4];
      const int row = step * 16 + (lane & 7) + (lane >> 4) * 8;
      load_transposed(a, &slot.weights[place(row, i * 2 + (lane >> 3 & 1))]);
      mma(sums[i], a[0], a[1], a[2], a[3], step & 1 ? v.z : v.x, step & 1 ? v.w : v.y);
    }
  }
}

__device__ __forceinline__ void prepare_zero(float* zero, const Gemv& p, int first, int count,
                                             int lane) {}

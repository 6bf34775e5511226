// Weights of 4 or 8 bits, BLOCK to a scale, in MatMulNBits' layout: [n][K * BITS / 8] bytes.
//
// A word of 8 or 4 weights gives tensor cores what they multiply without a conversion: masked, its
// integers are fp16 subnormals, q * 2^-24. fp32 sums a block, then its scale applies. The zero point
// z is taken from a block's sum as z * (sum of its activations), which the kernel before has left.
#pragma once

constexpr int CHUNK = 128 / BITS;            // weights in 16 bytes
constexpr int SLOT = K % MOST_SLOT ? 128 : MOST_SLOT;  // weights of a row
constexpr int ZEROS = K / BLOCK * ROWS;
constexpr int GROUPS = SLOT / (4 * CHUNK);   // of 4 chunks, in a slot: what a quad copies at once
constexpr int QUARTERS = SLOT / CHUNK;       // of a group: a word of each lane of a quad
constexpr int SCALES = SLOT / BLOCK;         // of a slot, a row
constexpr int COPIED = SCALES > 1 ? SCALES : 2;  // 4 bytes are the least that is copied
constexpr bool FINE = BLOCK < 4 * CHUNK;
constexpr float SUBNORMAL = 5.9604645e-8f;  // 2^-24: fp16 with the bits of the integer 1
constexpr float UNIT = SUBNORMAL;           // of the sums
constexpr float ZERO_POINT = BITS == 4 ? 8.f : 128.f;
static_assert(K % SLOT == 0, "unsupported K");
static_assert(K % BLOCK == 0 && SLOT % BLOCK == 0, "unsupported BLOCK");
static_assert(BLOCK == 32 || BLOCK == 64 || BLOCK == 128, "unsupported BLOCK");

struct Slot {
  uint4 weights[TILES][GROUPS][2][32];  // [rows g, rows g + 8][lane]
  u16 scales[TILES][TILE][COPIED];
};

// Where chunk c of row g lies among the 32 of a group, so that lanes read from all banks.
__device__ __forceinline__ int place(int g, int c) { return 4 * g + (FINE ? c ^ (g >> 1) : c); }

// Word `quarter` of a lane: of its own chunk, or its word of one chunk.
__device__ __forceinline__ u32 weight_word(const uint4 (&chunks)[32], int g, int t, int quarter) {
  return ((const u32*)&chunks[place(g, FINE ? quarter : t)])[FINE ? t : quarter];
}

// Where the scale of a row's slot lies in what is copied: behind its neighbour's if a slot has one
// scale, and the scale's number, counted from the first row of a tile, is odd.
__device__ __forceinline__ int scale_place(int row, int slot) {
  return SCALES > 1 ? 0 : (row * (K / BLOCK) + slot) & 1;
}

// What a lane copies next.
struct Ring {
  const uint4* weights[TILES];
  const u16* scales[TILES];
  int set, index;
};

// Points at the first slot of this warp in a set.
__device__ __forceinline__ void begin_set(Ring& r, const Gemv& p, int set, int first, int lane) {
  r.set = set;
  r.index = 0;
  for (int i = 0; i < TILES; i++) {
    const int matrix = EPILOGUE == GATED ? i : 0;
    const u64 tile = EPILOGUE == GATED ? set : set * TILES + i;
    const u64 row = tile * TILE + (lane >> 2), scale_row = tile * TILE + (lane & 15);
    r.weights[i] = p.weights[matrix] + row * (K / CHUNK) + first * (SLOT / CHUNK) + (lane & 3);
    r.scales[i] = p.scales[matrix] + scale_row * (K / BLOCK) + first * SCALES;
  }
}

// Begins to copy the slot that the ring is at, of this warp's slots the r.index-th.
__device__ __forceinline__ void copy_slot(Ring& r, Slot& to, int first, int lane) {
  const int at = place(lane >> 2, lane & 3);
#pragma unroll
  for (int i = 0; i < TILES; i++) {
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
#pragma unroll
      for (int below = 0; below < 2; below++) {
        copy_async<16>(&to.weights[i][group][below][at],
                       r.weights[i] + group * 4 + (u64)below * 8 * (K / CHUNK));
      }
    }
    if (lane < TILE) {
      copy_async<2 * COPIED>(to.scales[i][lane], r.scales[i] - scale_place(lane, first + r.index));
    }
    r.weights[i] += SLOT / CHUNK;
    r.scales[i] += SCALES;
  }
}

// Adds a block of slot `number` to the sums of each tile, and begins the next.
__device__ __forceinline__ void add_block(float (&sums)[TILES][4], float (&d)[TILES][2][4],
                                          const Slot& slot, const float* zero, int block,
                                          int number, int g, int t) {
  const float zero0 = zero[block * ROWS + min(2 * t, ROWS - 1)];
  const float zero1 = zero[block * ROWS + min(2 * t + 1, ROWS - 1)];
#pragma unroll
  for (int i = 0; i < TILES; i++) {
    const float above = to_float(slot.scales[i][g][block + scale_place(g, number)]);
    const float below = to_float(slot.scales[i][g + 8][block + scale_place(g + 8, number)]);
    sums[i][0] += (d[i][0][0] + d[i][1][0] - zero0) * above;
    sums[i][2] += (d[i][0][2] + d[i][1][2] - zero0) * below;
    if (ROWS > 1) {
      sums[i][1] += (d[i][0][1] + d[i][1][1] - zero1) * above;
      sums[i][3] += (d[i][0][3] + d[i][1][3] - zero1) * below;
    }
#pragma unroll
    for (int e = 0; e < 4; e++) d[i][0][e] = d[i][1][e] = 0;
  }
}

// Adds slot `number` to the sums of each tile: [g][2t], [g][2t+1], [g+8][2t], [g+8][2t+1].
template <class Fragments>
__device__ __forceinline__ void multiply(float (&sums)[TILES][4], const Slot& slot,
                                         const Fragments& x, const float* zero, int number,
                                         int lane) {
  const int g = lane >> 2, t = lane & 3;
  zero += number * SCALES * ROWS;
  constexpr int LAST = BLOCK / CHUNK;  // quarters of a block
  constexpr int AT_ONCE = ROWS == 1 ? 1 : GROUPS;  // more take more registers
  float d[TILES][2][4] = {};  // two chains, so that one can wait for its product
#pragma unroll AT_ONCE
  for (int group = 0; group < GROUPS; group++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int q = group * 4 + j;
#pragma unroll
      for (int i = 0; i < TILES; i++) {
        u32 a = weight_word(slot.weights[i][group][0], g, t, j);
        u32 b = weight_word(slot.weights[i][group][1], g, t, j);
        if (BITS == 4) {
          const uint4 v = x[q];
          mma(d[i][0], a & 0x000f000fu, b & 0x000f000fu, a & 0x00f000f0u, b & 0x00f000f0u, v.x,
              v.y);
          a >>= 8;
          b >>= 8;
          mma(d[i][1], a & 0x000f000fu, b & 0x000f000fu, a & 0x00f000f0u, b & 0x00f000f0u, v.z,
              v.w);
        } else {
          const uint4 v = x[q / 2];
          mma(d[i][j & 1], a & 0x00ff00ffu, b & 0x00ff00ffu, (a >> 8) & 0x00ff00ffu,
              (b >> 8) & 0x00ff00ffu, j & 1 ? v.z : v.x, j & 1 ? v.w : v.y);
        }
      }
      if ((q + 1) % LAST == 0) add_block(sums, d, slot, zero, q / LAST, number, g, t);
    }
  }
}

// What the zero points add to the sums of this warp's blocks: [block][row].
__device__ __forceinline__ void prepare_zero(float* zero, const Gemv& p, int first, int count,
                                             int lane) {
  for (int i = lane; i < count * SCALES * ROWS; i += 32) {
    const int block = first * SCALES + i / ROWS, row = i % ROWS;
    float sum = 0;
    if (row < p.rows) {
      const float* from = p.x_sums + row * (K / TILE) + block * (BLOCK / TILE);
#pragma unroll
      for (int k = 0; k < BLOCK / TILE; k++) sum += load_written(from + k);
    }
    zero[block * ROWS + row] = ZERO_POINT * SUBNORMAL * sum;
  }
}

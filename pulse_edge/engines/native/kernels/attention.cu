// Attention of up to 8 new tokens over a KV cache: rotates queries and keys (RoPE), appends keys
// and values, and gives the activations of the output projection.
//
// A CTA takes one head of keys and values, one part ("split") of the positions before this step,
// and up to 16 queries of the rows of one slot. Its warps take 16 positions at a time. Queries are rows of a tensor
// core's 16 x 16 matrix: query i is row i / GROUP, head i % GROUP of those that share keys. The new
// positions are multiplied by split 0, from shared memory, so nothing is read that this kernel
// writes to the cache. The CTA that ends last adds up the splits.
#include "common.cuh"

#ifndef HEAD  // numbers of a head: 32, 64 or 128
#define HEAD 128
#endif
#ifndef GROUP  // query heads that share a head of keys and values
#define GROUP 1
#endif
#ifndef ROWS  // 1, or 8 for 2 to 8
#define ROWS 1
#endif
#ifndef WARPS
#define WARPS 4
#endif
#ifndef STAGES
#define STAGES 3
#endif
#ifndef CACHE_BITS  // of a key's and a value's number: 16 or 8
#define CACHE_BITS 16
#endif

struct Attention {
  const u16* qkv;       // [rows][(heads + 2 kv_heads) * HEAD]
  const u16* cosines;   // [positions][HEAD / 2]
  const u16* sines;
  u16* keys;            // [slots][kv_heads][capacity][HEAD] of fp16, or of bytes
  u16* values;
  u32* scales;          // [slots][kv_heads][capacity] of bytes: two fp16
  u16* copied_keys;     // [slots][kv_heads][capacity][HEAD] fp16, written beside bytes; or null
  u16* copied_values;
  const int* lengths;   // [slots]: positions filled before this step
  const int* row_slots; // [rows]; rows of a slot follow each other
  u16* x;               // [rows][heads * HEAD] in `layout`
  float* x_sums;        // [rows][heads * HEAD / 16]
  float4* partial;      // [gridDim.z][kv_heads][splits][QUERIES][HEAD / 4 + 1]
  u32* arrivals;        // [gridDim.z][kv_heads], 0 before and after
  int rows;
  int heads;
  int kv_heads;
  int capacity;
  int layout;
  int least;            // positions of a split
  float scale;          // 1 / sqrt(HEAD), times log2(e)
};

constexpr int THREADS = 32 * WARPS;
constexpr int KEYS = 16;               // positions that a warp takes at a time
constexpr int MOST_SPLITS = 16;
constexpr int TOGETHER = ROWS * GROUP;  // queries that read the same keys
constexpr int QUERIES = TOGETHER < 16 ? TOGETHER : 16;  // of a CTA
constexpr int Q_TILES = (TOGETHER + 15) / 16;
constexpr int STEPS = HEAD / 16;       // of a product along a head
static_assert(HEAD == 32 || HEAD == 64 || HEAD == 128, "unsupported HEAD");
static_assert(STAGES >= 2, "unsupported STAGES");

// The cache of one KV head of one sequence (slot): read for earlier positions, appended to for new
// ones.
struct HeadCache {
  u16 *keys, *values;  // [capacity][HEAD] of fp16, or of bytes
  u32* scales;         // [capacity], of bytes
};

// What a warp has so far of a tile of 16 queries; lane 4 g + t has rows g and g + 8.
struct Sums {
  float o[HEAD / 8][4];      // [8 elements of a head][mma's d]
  float largest[2], sum[2];  // of the scores: the largest, and of 2^(score - largest)
  float bias[2];             // see cache_bytes.cuh
};

struct Queries {
  u32 q[STEPS][4];  // fragments of `mma`
  float bias[2];    // see cache_bytes.cuh
};

// 2^(largest - overall), 0 where nothing was added.
__device__ __forceinline__ float weight_of(float largest, float overall) {
  return largest == -infinity() ? 0 : exp2f(largest - overall);
}

// x cos - y sin, y cos + x sin: elements d and d + HEAD / 2 of a head are turned together.
__device__ __forceinline__ void rotate(float& x, float& y, float cosine, float sine) {
  const float turned = x * cosine - y * sine;
  y = y * cosine + x * sine;
  x = turned;
}

// Turns scores of a row into weights, 2^(score - largest), and what there is so far to the new
// largest. A lane has four of the row's 16 scores.
__device__ __forceinline__ void weigh(Sums& sums, float (&s)[2][4], int below) {
  float largest = sums.largest[below];
#pragma unroll
  for (int i = 0; i < 4; i++) largest = fmaxf(largest, s[i >> 1][below * 2 + (i & 1)]);
  largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
  // While all scores are -infinity, 0 stands in for the largest: no NaN from their difference.
  const float base = largest == -infinity() ? 0 : largest;
  const float decay = exp2f(sums.largest[below] - base);
  sums.largest[below] = largest;
  sums.sum[below] *= decay;
  sums.bias[below] *= decay;
#pragma unroll
  for (int c = 0; c < HEAD / 8; c++) {
    sums.o[c][below * 2] *= decay;
    sums.o[c][below * 2 + 1] *= decay;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    float& score = s[i >> 1][below * 2 + (i & 1)];
    score = exp2f(score - base);
    sums.sum[below] += score;  // of this lane's positions
  }
}

#if CACHE_BITS == 8
#include "cache_bytes.cuh"
#else
#include "cache_halves.cuh"
#endif

// What a warp has of each query.
struct Merge {
  float4 o[QUERIES][HEAD / 4];
  float largest[QUERIES], sum[QUERIES];
};

struct Shared {
  union {
    KeysValues ring[WARPS][STAGES];
    Merge merge[WARPS];  // after the ring
  };
  KeysValues fresh;  // positions of this step, zeros after them
  float overall[QUERIES], total[QUERIES];  // of all warps: the largest score, and the sum
  float weights[QUERIES][MOST_SPLITS];     // of the splits
  u32 arrival;
};
#ifdef SHARED_BYTES
static_assert(sizeof(Shared) <= SHARED_BYTES, "the launch gives too little shared memory");
#endif

// Positions of a split: whole rounds of the warps.
__device__ __forceinline__ int split_size(int length, int splits, int least) {
  const int round = WARPS * KEYS, each = max((length + splits - 1) / splits, least);
  return (each + round - 1) / round * round;
}

// Leaves the sums of all warps in s.merge, in units of s.overall, whose sum is s.total.
__device__ __forceinline__ void share(Shared& s, const Sums& sums, int warp, int lane) {
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int below = 0; below < 2; below++) {
    const float sum = sum_over<4>(sums.sum[below]);
    const int query = below * 8 + g;
    if (query < QUERIES && t == 0) {
      s.merge[warp].largest[query] = sums.largest[below];
      s.merge[warp].sum[query] = sum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int below = 0; below < 2; below++) {
    const int query = below * 8 + g;
    if (query >= QUERIES) continue;
    float overall = -infinity(), total = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) overall = fmaxf(overall, s.merge[i].largest[query]);
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
      total += weight_of(s.merge[i].largest[query], overall) * s.merge[i].sum[query];
    }
    const float weight = weight_of(sums.largest[below], overall);
    float* to = (float*)s.merge[warp].o[query];
#pragma unroll
    for (int c = 0; c < HEAD / 8; c++) {
      to[element(c, t, 0)] = weight * sums.o[c][below * 2];
      to[element(c, t, 1)] = weight * sums.o[c][below * 2 + 1];
    }
    if (warp == 0 && t == 0) {
      s.overall[query] = overall;
      s.total[query] = total;
    }
  }
  __syncthreads();
}

__device__ __forceinline__ void add(float4& sum, float weight, const float4& v) {
  sum.x += weight * v.x;
  sum.y += weight * v.y;
  sum.z += weight * v.z;
  sum.w += weight * v.w;
}

// Elements 4 part .. 4 part + 3 of a query, in units of s.overall.
__device__ __forceinline__ float4 merge_warps(const Shared& s, int query, int part) {
  float4 o = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int i = 0; i < WARPS; i++) add(o, 1, s.merge[i].o[query][part]);
  return o;
}

// The weights of the splits, from their largest scores and sums: what each counts of the result.
__device__ __forceinline__ void weigh_splits(Shared& s, const float4* partial, int used, int warp,
                                             int lane) {
  for (int query = warp; query < QUERIES; query += WARPS) {
    const float4* from = partial + (lane * QUERIES + query) * (HEAD / 4 + 1) + HEAD / 4;
    float4 v = make_float4(-infinity(), 0, 0, 0);  // largest, sum
    if (lane < used) v = load_written(from);
    float overall = v.x;
#pragma unroll
    for (int o = 16; o; o >>= 1) overall = fmaxf(overall, __shfl_xor_sync(~0u, overall, o));
    const float weight = weight_of(v.x, overall), total = sum_over<32>(weight * v.y);
    if (lane < used) s.weights[query][lane] = weight / total;
  }
  __syncthreads();
}

// Elements of a query, of all splits.
__device__ __forceinline__ float4 merge_splits(const Shared& s, const float4* partial, int used,
                                               int query, int part) {
  constexpr int STRIDE = QUERIES * (HEAD / 4 + 1), AT_ONCE = 8;
  const float4* from = partial + query * (HEAD / 4 + 1) + part;
  float4 o = make_float4(0, 0, 0, 0);
  for (int first = 0; first < used; first += AT_ONCE) {
    float4 v[AT_ONCE];
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      if (first + i < used) v[i] = load_written(from + (first + i) * STRIDE);
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
      if (first + i < used) add(o, s.weights[query][first + i], v[i]);
    }
  }
  return o;
}

#ifndef NO_ATTENTION
extern "C" __global__ void __launch_bounds__(THREADS) attention(const Attention p) {
  SHARED_MEMORY(memory);
  Shared& s = *(Shared*)memory;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int kv_head = blockIdx.x, split = blockIdx.y, splits = gridDim.y;
  const int tile = blockIdx.z % Q_TILES;

  // The rows of one slot: those of the first, the second, ... slot in this step.
  int first = 0;
  for (int others = blockIdx.z / Q_TILES; first < p.rows && others > 0; first++) {
    if (first + 1 == p.rows || p.row_slots[first + 1] != p.row_slots[first]) others--;
  }
  if (first == p.rows) return;
  const int slot = p.row_slots[first];
  int rows = 1;
  while (first + rows < p.rows && p.row_slots[first + rows] == slot) rows++;
  const int length = p.lengths[slot], size = split_size(length, splits, p.least);
  const int used = max(1, (length + size - 1) / size);
  if (split >= used) return;

  const HeadCache cache = head_cache_of(p, slot, kv_head);
  const int end = min((split + 1) * size, length);
  const int begin = split * size + warp * KEYS;
  int ahead = begin;  // what is copied next
  auto copy_next = [&](int stage) {
    if (ahead < end) copy_keys(s.ring[warp][stage], cache, ahead, end, lane);
    ahead += WARPS * KEYS;
    close_copy_group();
  };
#pragma unroll
  for (int i = 0; i < STAGES - 1; i++) copy_next(i);
  let_next_kernel_start();
  wait_for_previous_kernel();

  const Queries queries = load_queries(p, first, rows, length, kv_head, tile, lane);
  if (split == 0) {
    append(s.fresh, p, cache, slot, first, rows, length, kv_head, tile == 0);
  }
  __syncthreads();  // s.fresh is complete

  Sums sums = {{}, {-infinity(), -infinity()}, {}, {}};
  int stage = 0;
  for (int at = begin; at < end; at += WARPS * KEYS) {
    wait_for_copies<STAGES - 2>();
    __syncwarp();  // lanes read what others copied, and have read the stage that is copied to
    copy_next(stage == 0 ? STAGES - 1 : stage - 1);
    const int limit[2] = {end - at, end - at};
    add_keys(sums, queries, s.ring[warp][stage], limit, p.scale, lane);
    stage = stage + 1 == STAGES ? 0 : stage + 1;
  }
  if (split == 0 && warp == WARPS - 1) {
    const int query = tile * 16 + (lane >> 2);
    const int limit[2] = {query / GROUP + 1, (query + 8) / GROUP + 1};
    add_keys(sums, queries, s.fresh, limit, p.scale, lane);
  }
  finish(sums);
  wait_for_copies<0>();
  __syncthreads();  // all have read the ring, whose memory `merge` takes
  share(s, sums, warp, lane);

  float4* partial = p.partial + (u64)(blockIdx.z * p.kv_heads + kv_head) * splits *
                                    (QUERIES * (HEAD / 4 + 1));
  if (used > 1) {
    float4* to = partial + split * QUERIES * (HEAD / 4 + 1);
    for (int i = threadIdx.x; i < QUERIES * HEAD / 4; i += THREADS) {
      const int query = i / (HEAD / 4), part = i % (HEAD / 4);
      to[query * (HEAD / 4 + 1) + part] = merge_warps(s, query, part);
      if (part == 0) {
        to[query * (HEAD / 4 + 1) + HEAD / 4] =
            make_float4(s.overall[query], s.total[query], 0, 0);
      }
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      s.arrival = arrive(p.arrivals + blockIdx.z * p.kv_heads + kv_head, used);
    }
    __syncthreads();
    if (s.arrival != used - 1) return;
    weigh_splits(s, partial, used, warp, lane);
  }
  for (int begin = warp * 32; begin < QUERIES * HEAD / 4; begin += THREADS) {
    const bool valid = begin + lane < QUERIES * HEAD / 4;  // whole quads are, or are not
    const int i = valid ? begin + lane : 0;
    const int query = i / (HEAD / 4), part = i % (HEAD / 4), row = (tile * 16 + query) / GROUP;
    float4 o = make_float4(0, 0, 0, 0);
    if (used > 1) {
      o = merge_splits(s, partial, used, query, part);
    } else {
      add(o, 1 / s.total[query], merge_warps(s, query, part));
    }
    const u16 halves[4] = {to_half(o.x), to_half(o.y), to_half(o.z), to_half(o.w)};
    float sum = 0;
#pragma unroll
    for (int e = 0; e < 4; e++) sum += to_float(halves[e]);
    sum = sum_over<4>(sum);  // of 16 elements
    if (!valid || row >= rows) continue;
    const int k = (kv_head * GROUP + (tile * 16 + query) % GROUP) * HEAD + part * 4;
    const u64 width = (u64)p.heads * HEAD;
#pragma unroll
    for (int e = 0; e < 4; e++) {
      p.x[(first + row) * width + position(p.layout, k + e)] =
          to_half(to_float(halves[e]) * shift(p.layout, k + e));
    }
    if ((k & 15) == 0) p.x_sums[(first + row) * (width / 16) + k / 16] = sum;
  }
}
#endif

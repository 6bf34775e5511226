// Fills a cache of bytes from one of fp16, in which another engine has put a prompt.
#define CACHE_BITS 8
#define GROUP 1
#define ROWS 1
#define WARPS 4
#define STAGES 2
#define NO_ATTENTION
#include "attention.cu"

struct Quantize {
  const u16* keys;      // [slots][kv_heads][capacity][HEAD] fp16
  const u16* values;
  u16* key_bytes;       // as Attention has them
  u16* value_bytes;
  u32* scales;
  int kv_heads;
  int capacity;
  int begin, end;       // positions
  int slot;
};

// A CTA a head and 4 * gridDim.y positions at a time; a warp a position, four elements a lane.
extern "C" __global__ void __launch_bounds__(32 * WARPS) quantize_cache(const Quantize p) {
  const int lane = threadIdx.x & 31, d = 2 * lane, head = blockIdx.x;
  const bool has = d < HEAD / 2;
  wait_for_previous_kernel();
  const u64 start = (u64)(p.slot * p.kv_heads + head) * p.capacity;
  for (int i = p.begin + blockIdx.y * WARPS + (threadIdx.x >> 5); i < p.end;
       i += gridDim.y * WARPS) {
    u32 scales = 0;
    for (int which = 0; which < 2; which++) {
      const u16* source = (which ? p.values : p.keys) + (start + i) * HEAD + d;
      float x[4] = {};
      if (has) {
        for (int half = 0; half < 2; half++) {
          const u32 pair = load_written((const u32*)(source + half * (HEAD / 2)));
          x[2 * half] = low(pair), x[2 * half + 1] = high(pair);
        }
      }
      u32 bytes;
      scales |= (u32)quantize(x, bytes) << (16 * which);
      u16* rows = (which ? p.value_bytes : p.key_bytes) + start * (HEAD / 2);
      if (has) put_cache(rows, i, d, bytes);
    }
    if (lane == 0) p.scales[start + i] = scales;
  }
}

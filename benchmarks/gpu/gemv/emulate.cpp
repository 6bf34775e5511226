// gemv.cu compiled for the CPU, one grid at a time.
#define EMULATED
#include "gemv.cu"

struct Arguments {
  const uint4* w;
  const u32* scales;
  const u16* x;
  const uint4* norm;
  const u16* residual;
  u16* y;
  int n;
};
static Arguments arguments;  // of gemv, for all fibers

// Pointers as gemv takes them. `late`: see cuda_shim.h. Returns a shim::Fault, 0 if there was none.
extern "C" int emulate(const void* w, const void* scales, const void* x, const void* norm,
                       const void* residual, void* y, int n, int ctas, unsigned seed, int late) {
  shim::readable.clear();
  auto allow = [](const void* p, size_t bytes) {
    shim::readable.push_back({(const char*)p, (const char*)p + bytes});
  };
  allow(w, (size_t)n * K / 2);
  allow(scales, (size_t)n * BLOCKS * 2);
  allow(x, ROWS * K * 2);
  if (NORM) allow(norm, K * 2);
  if (RESIDUAL) allow(residual, (size_t)ROWS * n * 2);
  shim::threads = THREADS;
  shim::grid = ctas;
  shim::late = late;
  shim::state = seed;
  shim::fault = shim::NONE;
  arguments = {(const uint4*)w, (const u32*)scales, (const u16*)x, (const uint4*)norm,
               (const u16*)residual, (u16*)y, n};
  shim::body = [] {
    const Arguments& a = arguments;
    gemv(a.w, a.scales, a.x, a.norm, a.residual, a.y, a.n);
  };
  for (int i = 0; i < ctas && shim::fault == shim::NONE; i++) {
    shim::block_index = i;
    shim::run_block();
  }
  return shim::fault;
}

// Rows of 16-bit floats may begin at any number. The built-in functions promise that, but pocl 3.1 makes loads and stores of them that
// want their own width as alignment, and ends in a segmentation fault elsewhere: so they only see private memory here.
#define HALVES(n) \
  static inline float##n vload_halves##n(int index, __global const half *from) { \
    const ushort##n bits = vload##n(index, (__global const ushort *)from); \
    return vload_half##n(0, (const half *)&bits); \
  } \
  static inline void vstore_halves##n(float##n value, int index, __global half *to) { \
    ushort##n bits; \
    vstore_half##n(value, 0, (half *)&bits); \
    vstore##n(bits, index, (__global ushort *)to); \
  }
HALVES(4)
HALVES(8)
HALVES(16)

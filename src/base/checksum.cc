// XXH3, from libxxhash.
#include "base/checksum.h"

#include <xxhash.h>

namespace aionbd {

uint64_t checksum(Bytes bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

uint64_t checksum_seed(uint64_t a, uint64_t b, uint64_t c) {
  const uint64_t words[3] = {a, b, c};
  return XXH3_64bits(words, sizeof(words));
}

}  // namespace aionbd

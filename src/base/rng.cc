// Seeds from the operating system.
#include "base/rng.h"

#include <unistd.h>

#include "base/check.h"

namespace aionbd {

uint64_t entropy_seed() {
  // Not std::random_device: it asks the processor what it can do each time, which in a virtual
  // machine costs 20 us.
  uint64_t seed = 0;
  CHECK_TRUE(getentropy(&seed, sizeof(seed)) == 0);
  return seed;
}

}  // namespace aionbd

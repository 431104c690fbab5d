// Seeds from the operating system.
#include "base/rng.h"

#include <random>

namespace aionbd {

uint64_t entropy_seed() {
  std::random_device device;
  return (uint64_t{device()} << 32) | device();
}

}  // namespace aionbd

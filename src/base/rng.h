// Seeded randomness: the same seed gives the same numbers everywhere.
// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): one 64-bit word of state, passes BigCrush.
#pragma once

#include <cstdint>

namespace aionbd {

/// Thread safety: single owner.
class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9E3779B97F4A7C15U;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
  }
  /// Uniform in [0, bound); bias below 2^-32 for bounds below 2^32. REQUIRES: bound > 0.
  uint64_t below(uint64_t bound) { return next() % bound; }
  /// Uniform in [0, 1).
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  bool chance(double probability) { return uniform() < probability; }

 private:
  uint64_t state_;
};

/// A seed from the operating system, for identities (never for tests).
uint64_t entropy_seed();

}  // namespace aionbd

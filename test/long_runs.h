// How long a test runs, and what it has done: short by itself, as long as its environment variables
// say in a campaign, which adds up the lines that begin with "counted:" (tools/campaign.py).
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "base/sanitized.h"

namespace aionbd {

/// The number in an environment variable, or `fallback`.
inline uint64_t number_from_environment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

inline void print_counted(uint64_t count, const char* what) {
  std::printf("counted: %llu %s\n", static_cast<unsigned long long>(count), what);
}

/// Sanitized programs are about ten times slower, and there are two kinds of them: they do so much
/// less of what is repeated.
inline constexpr uint64_t kSlowness = kSanitized ? 20 : 1;

}  // namespace aionbd

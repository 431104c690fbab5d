// Allocations that fail: the heap of a program whose operator new is replaced (shortage.cc).
#pragma once

#include <cstdint>

namespace aionbd {

/// Allocations of this thread fail from here to its end: the n-th, and with `from_then_on` all that
/// follow. Thread safety: single owner, one at a time per thread.
class Shortage {
 public:
  Shortage(uint64_t n, bool from_then_on);
  ~Shortage();
  Shortage(const Shortage&) = delete;
  Shortage& operator=(const Shortage&) = delete;
  /// True if one of the last shortage failed.
  static bool met();
};

}  // namespace aionbd

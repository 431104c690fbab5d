// Counts what the program takes from the heap, by replacing operator new in this test program: for
// showing that no byte of a file makes anybody allocate more than the file is worth.
#pragma once

#include <cstdint>

namespace aionbd {

/// From its construction on, over all threads. Thread safety: one at a time.
class AllocationWatch {
 public:
  AllocationWatch();
  /// Most bytes held at one time, beyond those held when it began.
  uint64_t peak_bytes() const;

 private:
  int64_t before_ = 0;
};

}  // namespace aionbd

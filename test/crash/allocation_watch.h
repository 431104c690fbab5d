// Counts what the program takes from the heap, by replacing operator new in this test program: for
// showing that no byte of a file makes anybody allocate more than the file is worth.
#pragma once

#include <cstdint>

namespace aionbd {

/// While it lives, over all threads. Thread safety: one at a time.
class AllocationWatch {
 public:
  AllocationWatch();
  ~AllocationWatch();
  AllocationWatch(const AllocationWatch&) = delete;
  AllocationWatch& operator=(const AllocationWatch&) = delete;

  /// Most bytes held at one time, beyond those held when it began.
  uint64_t peak_bytes() const;
};

}  // namespace aionbd

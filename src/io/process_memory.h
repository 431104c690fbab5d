// What the process holds in physical memory, as the system counts it.
#pragma once

#include <cstdint>

namespace aionbd {

/// Thread safety: safe.
class ProcessMemory {
 public:
  virtual ~ProcessMemory() = default;
  /// Resident bytes, those of mapped files included; 0 when the system does not say.
  virtual uint64_t resident_bytes() const = 0;
  /// Gives freed memory that the heap keeps back to the system. Cost: up to milliseconds.
  virtual void give_back_freed() = 0;
};

/// This process; lives for ever.
ProcessMemory& process_memory();

}  // namespace aionbd

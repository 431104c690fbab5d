// Injectable time. Intervals, deadlines and rates use the monotonic clock only; wall time is for
// log lines.
#pragma once

#include <chrono>
#include <cstdint>

namespace aionbd {

using MonotonicTime = std::chrono::steady_clock::time_point;

/// Thread safety: safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual MonotonicTime now() const = 0;
};

/// The machine's clock; lives for ever.
const Clock& system_clock_source();

/// Stands still until told: for tests. Thread safety: single owner.
class ManualClock : public Clock {
 public:
  MonotonicTime now() const override { return now_; }
  void advance(std::chrono::nanoseconds by) { now_ += by; }

 private:
  MonotonicTime now_{std::chrono::seconds(1)};
};

/// Microseconds from `start` to `end`, rounded down.
inline uint64_t elapsed_us(MonotonicTime start, MonotonicTime end) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(end - start).count());
}

}  // namespace aionbd

// A word that one thread sleeps on until another changes it: a futex, and nothing around it.
// std::atomic::wait does the same but yields the processor a few times first; where the wait is for
// a medium that never comes back within microseconds, those are system calls for nothing (64
// writers: 3.7 for each write).
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace aionbd {

/// Thread safety: safe; one thread sleeps, any other sets.
class SleepWord {
 public:
  explicit SleepWord(uint32_t value) : value_(value) {}

  uint32_t get() const { return value_.load(); }
  /// Returns when the value is no longer `value`.
  void sleep_while(uint32_t value) {
    while (value_.load() == value)
      ::syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, value, nullptr);
  }
  /// The store is the last touch of the word: a thread that sees it may end the word's life. Waking
  /// needs the address only; a stray wake of whatever lies there next is a spurious one.
  void set_and_wake(uint32_t value) {
    std::atomic<uint32_t>* const address = &value_;
    value_.store(value);
    ::syscall(SYS_futex, address, FUTEX_WAKE_PRIVATE, 1);
  }

 private:
  std::atomic<uint32_t> value_;
  static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));
};

}  // namespace aionbd

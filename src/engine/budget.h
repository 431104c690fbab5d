// Reserve memory before allocating it.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace aionbd {

/// Thread safety: safe.
class MemoryBudget {
 public:
  /// `limit_bytes` 0: unlimited.
  explicit MemoryBudget(uint64_t limit_bytes) : limit_(limit_bytes) {}

  /// False, and nothing reserved, when the sum would pass the limit.
  bool try_reserve(uint64_t bytes) {
    uint64_t used = used_.load(std::memory_order_relaxed);
    do {
      if (limit_ != 0 && (bytes > limit_ || used > limit_ - bytes)) return false;
    } while (!used_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
    return true;
  }
  /// For memory that must be taken whatever the limit (recovery of what was acknowledged).
  void reserve_always(uint64_t bytes) { used_.fetch_add(bytes, std::memory_order_relaxed); }
  void release(uint64_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }

  uint64_t used() const { return used_.load(std::memory_order_relaxed); }
  uint64_t limit() const { return limit_; }

 private:
  const uint64_t limit_;
  std::atomic<uint64_t> used_{0};
};

/// Gives back at its end what was reserved for it. Thread safety: single owner.
class Reservation {
 public:
  explicit Reservation(MemoryBudget* budget) : budget_(budget) {}
  ~Reservation() { budget_->release(bytes_); }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

  /// Takes over `bytes` already reserved in the budget.
  void adopt(uint64_t bytes) { bytes_ += bytes; }
  uint64_t bytes() const { return bytes_; }

 private:
  MemoryBudget* budget_;
  uint64_t bytes_ = 0;
};

}  // namespace aionbd

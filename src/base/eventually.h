// For tests that wait for what background threads do.
#pragma once

#include <chrono>
#include <thread>

namespace aionbd {

/// Asks again every few milliseconds until `holds()` is true. False after five minutes: sanitized
/// and on a busy machine, what takes milliseconds elsewhere takes a minute.
template <typename Condition>
bool eventually(Condition holds) {
  constexpr std::chrono::minutes kLongest{5};
  constexpr std::chrono::milliseconds kPause{5};
  const auto end = std::chrono::steady_clock::now() + kLongest;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(kPause);
  }
  return true;
}

}  // namespace aionbd

// Is there an order of these reads and writes of one register that explains every answer and keeps
// the order of time? (Linearizability.)
//
// The search is that of Wing and Gong (Testing and Verifying Concurrent Objects, 1993) with Lowe's
// memory of the configurations already tried (Testing for Linearizability, 2017), on a list of
// calls and returns as Athalye's Porcupine does it. A history of many registers is checked register
// by register: it is linearizable if and only if each of them is (Herlihy and Wing, 1990).
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace aionbd {

/// Of a call whose outcome nobody knows: it may have happened at any time since, or never.
inline constexpr uint64_t kNeverReturned = std::numeric_limits<uint64_t>::max();

/// One call. Times are places in one total order.
struct RegisterCall {
  bool is_write = false;
  uint64_t value = 0;  // written, or read
  uint64_t called = 0;
  uint64_t returned = kNeverReturned;
};

enum class Verdict {
  kLinearizable,
  kNot,
  kGaveUp,  // the history has too many calls at once for the steps allowed
};

/// `calls` in any order; the register holds `initial` before them. Reads must have returned.
/// Cost: for c calls at once about n * 2^c steps in the worst case, n in the usual one.
Verdict check_register(const std::vector<RegisterCall>& calls, uint64_t initial,
                       uint64_t steps_max = 10'000'000);

}  // namespace aionbd

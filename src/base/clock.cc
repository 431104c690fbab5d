// The machine's monotonic clock.
#include "base/clock.h"

namespace aionbd {

namespace {
class SystemClock : public Clock {
 public:
  MonotonicTime now() const override { return std::chrono::steady_clock::now(); }
};
}  // namespace

const Clock& system_clock_source() {
  static const SystemClock clock;
  return clock;
}

}  // namespace aionbd

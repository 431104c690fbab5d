#include "base/thread_priority.h"

#include <sys/resource.h>

namespace aionbd {

void lower_thread_priority() {
  constexpr int kLowest = 19;
  // On Linux 0 is the calling thread, not the process. Refused: it runs as it did.
  (void)setpriority(PRIO_PROCESS, 0, kLowest);
}

}  // namespace aionbd

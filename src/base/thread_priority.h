// Work that must not be in the way of other work.
#pragma once

namespace aionbd {

/// Lets the calling thread run only when nothing else wants its core, as far as the system does
/// that; never fails.
void lower_thread_priority();

}  // namespace aionbd

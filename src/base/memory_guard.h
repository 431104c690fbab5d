// Where running out of memory becomes an error like others.
//
// The code has no exceptions of its own, but the standard library throws std::bad_alloc from any
// allocation. It is caught at the doors: of the database and its collections, of a background job,
// of a request handler. What lies between must leave its state whole when an exception passes
// through it: everything that allocates comes first, what changes shared state comes last and does
// not allocate; or the state is marked, and mended before its next use.
#pragma once

#include <new>
#include <stdexcept>

#include "aionbd/status.h"

namespace aionbd {

/// Short enough for a string without an allocation.
inline Status out_of_memory() {
  return resource_exhausted("out of memory");
}

/// The value of `work` (a Status or a Result), or resource_exhausted when memory ran out in it.
template <typename Work>
auto within_memory(Work work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::length_error&) {  // asked for more than any allocation can be
    return out_of_memory();
  }
}

/// Does `work`, or as much of it as there is memory for: for what is done again soon anyway. False
/// when memory ran out.
template <typename Work>
bool as_memory_allows(Work work) {
  return within_memory([&] {
           work();
           return Status();
         })
      .ok();
}

}  // namespace aionbd

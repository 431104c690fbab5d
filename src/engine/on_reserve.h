// Work that may go on when the disk is full.
#pragma once

#include "storage/storage.h"

namespace aionbd {

inline Code code_of(const Status& status) {
  return status.code();
}
template <typename T>
Code code_of(const Result<T>& result) {
  return result.has_value() ? Code::kOk : result.error().code();
}

/// Does `work` (a Status or a Result), and once more with the disk's reserve when there is no
/// space: for what leads to more space. REQUIRES: what was refused has changed nothing; no lock is
/// held that a write takes.
template <typename Work>
auto on_reserve(Storage& storage, Work work) {
  auto done = work();
  if (code_of(done) != Code::kStorageFull) return done;
  const std::unique_ptr<ReserveUse> use = storage.use_reserve();
  if (use == nullptr) return done;
  return work();
}

}  // namespace aionbd

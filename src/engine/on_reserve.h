// Work that may go on when the disk is full.
#pragma once

#include "engine/context.h"
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

/// The same for what users do: a checkpoint, a merge or an index file in progress may be written to
/// the space that the reserve gave. When it has ended, its own is free again, or more is.
template <typename Work>
auto on_reserve_after_jobs(EngineContext& context, Work work) {
  constexpr int kJobsMax = 4;  // one may follow the other
  auto done = on_reserve(*context.storage, work);
  for (int i = 0; i < kJobsMax && code_of(done) == Code::kStorageFull; ++i) {
    if (context.options.disk_reserve_bytes == 0) break;
    context.wait_for_job();
    done = on_reserve(*context.storage, work);
  }
  return done;
}

}  // namespace aionbd

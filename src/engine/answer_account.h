// What answers take of the memory budget: payloads are small in a segment and large in an answer,
// and many requests make theirs at once.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "aionbd/collection.h"
#include "engine/context.h"

namespace aionbd {

/// Bytes of an answer per byte of an encoded payload: as values and then as text, about.
inline constexpr uint64_t kAnswerBytesPerPayloadByte = 5;
/// Per value of a vector: four bytes, and the text.
inline constexpr uint64_t kAnswerBytesPerValue = 16;
/// Per point, whatever it carries.
inline constexpr uint64_t kAnswerBytesPerPoint = 256;

/// Bytes of the budget that somebody holds, given back at the end. Thread safety: immutable.
class HeldMemory {
 public:
  HeldMemory(std::shared_ptr<EngineContext> context, uint64_t bytes)
      : context_(std::move(context)), bytes_(bytes) {}
  ~HeldMemory() { context_->budget.release(bytes_); }
  HeldMemory(const HeldMemory&) = delete;
  HeldMemory& operator=(const HeldMemory&) = delete;

 private:
  const std::shared_ptr<EngineContext> context_;
  const uint64_t bytes_;
};

/// Takes memory while an answer is made. Thread safety: single owner.
class AnswerAccount {
 public:
  explicit AnswerAccount(std::shared_ptr<EngineContext> context) : context_(std::move(context)) {}
  ~AnswerAccount() { context_->budget.release(reserved_); }
  AnswerAccount(const AnswerAccount&) = delete;
  AnswerAccount& operator=(const AnswerAccount&) = delete;

  /// Before so much of the answer is made. Errors: resource_exhausted. Cost: an addition, as a
  /// rule.
  Status add(uint64_t bytes) {
    MemoryBudget& budget = context_->budget;
    if (budget.limit() == 0) return {};
    used_ += bytes;
    if (used_ <= reserved_) return {};
    const uint64_t more = std::max(used_ - reserved_, kStepBytes);
    if (!budget.try_reserve(more)) {
      return resource_exhausted(
          "the answer needs more memory than the budget has: over " + std::to_string(used_) +
          " bytes, " + std::to_string(budget.limit() - std::min(budget.limit(), budget.used())) +
          " are free");
    }
    reserved_ += more;
    return {};
  }

  /// What was taken, for the answer to hold.
  AnswerMemory take() {
    if (reserved_ == 0) return nullptr;
    auto out = std::make_shared<HeldMemory>(context_, reserved_);
    reserved_ = used_ = 0;
    return out;
  }

 private:
  static constexpr uint64_t kStepBytes = 64 << 10;

  const std::shared_ptr<EngineContext> context_;
  uint64_t used_ = 0;
  uint64_t reserved_ = 0;
};

}  // namespace aionbd

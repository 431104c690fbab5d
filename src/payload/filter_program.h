// What a filter is compiled to: a program to run over one payload (filter.cc), and a tree of the
// same tests to answer from the index of a segment (filter_evaluate.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "payload/filter.h"
#include "payload/stored_field.h"

namespace aionbd {

enum class BoundKind : uint8_t { kGt, kGte, kLt, kLte };

/// A wanted value of a test, or a bound of a range. Owns its text.
struct FilterOperand {
  explicit FilterOperand(const Scalar& from) : tag(from.tag), bits(from.bits), text(from.text) {}
  Scalar scalar() const { return {tag, bits, text}; }

  ValueTag tag;
  BoundKind bound = BoundKind::kGt;  // of a range
  uint64_t bits;
  std::string text;
};

enum class FilterStepKind : uint8_t {
  kEquals,       // some element equals the one operand
  kAnyOf,        // some element equals one of the operands, which are sorted and distinct
  kContainsAll,  // every operand (sorted, distinct) is equalled by some element
  kRange,        // some numeric element lies within all bounds
  kPrefix,       // some string element starts with the one operand
  kExists,       // the field is there
  kJump,         // to on_true
  kResetCount,   // counter = 0, to on_true
  kCount,        // counter + 1; has it reached `needed`?
};

using FilterTarget = uint32_t;

struct FilterStep {
  FilterStepKind kind = FilterStepKind::kJump;
  uint32_t needed = 0;  // of kCount
  size_t level = 0;     // of kResetCount and kCount
  FilterTarget on_true = 0;
  FilterTarget on_false = 0;
  std::string field;
  size_t first_dot = std::string::npos;  // in `field`
  size_t operands_begin = 0;
  size_t operands_count = 0;
};

using FilterOperands = std::span<const FilterOperand>;

/// A clause, or a filter in place of one. What cannot matter (`should` that needs no match) is left
/// out.
struct FilterNode {
  enum class Kind : uint8_t {
    kTest,     // what step `step` tests, kExists not negated
    kNotTest,  // the opposite: the field is not there
    kNever,    // no payload passes
    kGroup,    // all of `must`, none of `must_not`, `minimum` of `should`
  };
  Kind kind = Kind::kGroup;
  size_t step = 0;
  size_t minimum = 0;
  std::vector<FilterNode> must;
  std::vector<FilterNode> must_not;
  std::vector<FilterNode> should;
};

/// Steps run from the front; `steps.size()` as a target accepts the payload, one more refuses it.
struct CompiledFilter::Program {
  std::vector<FilterStep> steps;
  std::vector<FilterOperand> operands;
  FilterNode root;

  bool matches(Bytes payload) const;
  FilterOperands operands_of(const FilterStep& step) const {
    return FilterOperands(operands).subspan(step.operands_begin, step.operands_count);
  }
};

}  // namespace aionbd

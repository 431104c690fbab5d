// Answering a filter from the index of a segment, by sets of rows.
//
// Every node of the filter becomes two sets: the rows that match for certain and those that may.
// They differ only where a field is not indexed, and each connective keeps them sound ("not" swaps
// them), as in three-valued logic (Kleene, "Introduction to Metamathematics", 1952, section 64).
//
// Numbers of one field are in up to three columns, one per stored kind, so that a value is compared
// as it was stored; a test of numbers looks into each.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "payload/field_index.h"
#include "payload/field_index_reader.h"
#include "payload/filter.h"
#include "payload/filter_program.h"

namespace aionbd {

namespace {

constexpr std::array kNumberKinds = {ValueTag::kInt64, ValueTag::kUint64, ValueTag::kDouble};

// ---- What a test selects from the index ---------------------------------------------------------

/// The union of some postings and values of a field, not yet looked at.
/// Thread safety: single owner.
class Selection {
 public:
  explicit Selection(uint64_t rows) : rows_(rows) {}

  void add_posting(const FieldReader& field, const PostingRef& ref) {
    if (ref.count == 0) return;
    postings_.push_back({field.posting(ref), ref.count});
    count(ref.count, ref.count);
  }
  void add_values(const ColumnReader& column, uint32_t first, uint32_t last) {
    if (first >= last) return;
    const auto before = column.entries_before(first);
    const auto until = column.entries_before(last);
    if (!before || !until || *before > *until) {
      damaged_ = true;
      return;
    }
    const uint32_t entries = *until - *before;
    if (entries == 0) return;
    slices_.push_back({column, first, last, entries});
    // A row with n of these entries has n - 1 of the column's extra ones; and of one value, one.
    const uint32_t extra = last - first == 1 ? 0 : column.extra_entries();
    count(entries > extra ? entries - extra : 1, entries);
  }
  void mark_damaged() { damaged_ = true; }

  bool damaged() const { return damaged_; }
  CountBounds count_bounds() const { return {lower_, std::min(upper_, rows_)}; }
  /// None when what is selected is damaged.
  std::optional<RowSet> to_set() const;

 private:
  struct Posting {
    Bytes bytes;
    uint64_t count;
  };
  struct Slice {
    ColumnReader column;
    uint32_t first;
    uint32_t last;
    uint32_t entries;
  };

  void count(uint64_t lower, uint64_t upper) {
    lower_ = std::min(std::max(lower_, lower), rows_);
    upper_ += upper;  // at most 2^32 for each of fewer than 2^32 parts
  }
  std::optional<RowSet> listed_rows() const;

  uint64_t rows_;
  std::vector<Posting> postings_;
  std::vector<Slice> slices_;
  uint64_t lower_ = 0;
  uint64_t upper_ = 0;
  bool damaged_ = false;
};

std::optional<RowSet> Selection::to_set() const {
  if (damaged_) return std::nullopt;
  if (postings_.empty() && slices_.empty()) return RowSet();
  if (postings_.size() == 1 && slices_.empty()) {
    return read_posting(postings_[0].bytes, rows_, postings_[0].count);
  }
  if (postings_.empty() && slices_.size() == 1 && slices_[0].last - slices_[0].first == 1) {
    const Slice& slice = slices_[0];
    const Bytes posting = slice.column.value_posting(slice.first);
    if (!posting.empty()) return read_posting(posting, rows_, slice.entries);
  }
  // Up to this many entries it is cheaper to sort them than to go through one bit for each row.
  constexpr uint64_t kSortedEntriesMin = 64;
  constexpr uint64_t kRowsPerEntryDense = 2048;
  if (postings_.empty() && upper_ <= std::max(kSortedEntriesMin, rows_ / kRowsPerEntryDense)) {
    if (auto rows = listed_rows()) return rows;
  }
  DenseRows dense(rows_);
  for (const Posting& posting : postings_) {
    if (!dense.add_posting(posting.bytes)) return std::nullopt;
  }
  for (const Slice& slice : slices_) {
    if (!slice.column.add_rows(slice.first, slice.last, &dense)) return std::nullopt;
  }
  return dense.to_set();
}

/// None when some rows are postings, or damaged.
std::optional<RowSet> Selection::listed_rows() const {
  std::vector<uint32_t> all;
  for (const Slice& slice : slices_) {
    if (!slice.column.append_listed(slice.first, slice.last, &all)) return std::nullopt;
  }
  std::sort(all.begin(), all.end());
  if (!all.empty() && all.back() >= rows_) return std::nullopt;
  return RowSet::of(all);
}

/// The first value for which `before` is false. REQUIRES: it is true up to some value and then
/// false. Damaged values end the search.
template <typename Before>
uint32_t first_value_not(const ColumnReader& column, bool* damaged, const Before& before) {
  uint32_t low = 0;
  uint32_t high = column.values_count();
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    const auto value = column.value(middle);
    if (!value) {
      *damaged = true;
      return 0;
    }
    if (before(*value)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/// Selects what single tests want of one field. Thread safety: single owner.
class FieldSelector {
 public:
  FieldSelector(const FieldReader& field, Selection* out) : field_(field), out_(*out) {}

  void exists() { out_.add_posting(field_, field_.exists()); }

  void equal_to(const Scalar& wanted) {
    switch (wanted.tag) {
      case ValueTag::kNull: out_.add_posting(field_, field_.nulls()); return;
      case ValueTag::kFalse: out_.add_posting(field_, field_.falses()); return;
      case ValueTag::kTrue: out_.add_posting(field_, field_.trues()); return;
      case ValueTag::kString: equal_in(ValueTag::kString, wanted); return;
      default:
        for (const ValueTag kind : kNumberKinds) equal_in(kind, wanted);
    }
  }

  void in_range(FilterOperands bounds) {
    for (const ValueTag kind : kNumberKinds) {
      with_column(kind, [&](const ColumnReader& column, bool* damaged) {
        uint32_t first = 0;
        uint32_t last = column.values_count();
        for (const FilterOperand& bound : bounds) {
          const Scalar limit = bound.scalar();
          const bool from_below = bound.bound == BoundKind::kGt || bound.bound == BoundKind::kGte;
          // Values equal to the bound are before the place sought where a lower bound leaves them
          // out and an upper one takes them in.
          const bool equal_before = bound.bound == BoundKind::kGt || bound.bound == BoundKind::kLte;
          const uint32_t at = first_value_not(column, damaged, [&](const Scalar& value) {
            return order_numbers(value, limit) < (equal_before ? 1 : 0);
          });
          if (from_below) {
            first = std::max(first, at);
          } else {
            last = std::min(last, at);
          }
        }
        out_.add_values(column, first, last);
      });
    }
  }

  void starts_with(std::string_view prefix) {
    with_column(ValueTag::kString, [&](const ColumnReader& column, bool* damaged) {
      const uint32_t first = first_value_not(
          column, damaged, [&](const Scalar& value) { return value.text < prefix; });
      const uint32_t last = first_value_not(column, damaged, [&](const Scalar& value) {
        return value.text.substr(0, prefix.size()) <= prefix;
      });
      out_.add_values(column, first, last);
    });
  }

 private:
  template <typename Use>
  void with_column(ValueTag kind, const Use& use) {
    bool damaged = false;
    if (const auto column = field_.column(kind, &damaged)) use(*column, &damaged);
    if (damaged) out_.mark_damaged();
  }

  void equal_in(ValueTag kind, const Scalar& wanted) {
    with_column(kind, [&](const ColumnReader& column, bool* damaged) {
      const uint32_t at = first_value_not(
          column, damaged, [&](const Scalar& value) { return order_scalars(value, wanted) < 0; });
      if (*damaged || at == column.values_count()) return;
      const auto value = column.value(at);
      if (!value) {
        *damaged = true;
      } else if (order_scalars(*value, wanted) == 0) {
        out_.add_values(column, at, at + 1);
      }
    });
  }

  const FieldReader& field_;
  Selection& out_;
};

// ---- Sets for certain and sets that may be ------------------------------------------------------

/// Thread safety: single owner.
struct Bounds {
  RowSet upper;
  RowSet lower;  // unused when exact: it is `upper`
  bool exact = true;

  const RowSet& certain() const { return exact ? upper : lower; }
};

/// Counts in how many of the sets added each row is: bit i of the counts of all rows is one set
/// (a bit-sliced counter; O'Neil and Quass, "Improved query performance with variant indexes",
/// 1997).
/// Thread safety: single owner.
class RowCounter {
 public:
  /// When only "at least one" will be asked, a union is enough.
  explicit RowCounter(size_t minimum) : minimum_(minimum) {}

  void add(const RowSet& rows) {
    if (minimum_ == 1) {
      if (digits_.empty()) digits_.emplace_back();
      digits_[0].or_with(rows);
      return;
    }
    RowSet carry = rows;
    for (size_t i = 0; !carry.empty(); ++i) {
      if (i == digits_.size()) digits_.emplace_back();
      RowSet next = digits_[i];
      next.and_with(carry);
      digits_[i].or_with(carry);
      digits_[i].and_not_with(next);
      carry = std::move(next);
    }
  }

  /// The rows counted at least `minimum` times. REQUIRES: minimum > 0.
  RowSet take() && {
    const size_t digits_wanted = static_cast<size_t>(std::bit_width(minimum_));
    if (digits_wanted > digits_.size()) return {};
    // From the highest digit down: rows already above the minimum, and those equal to it so far.
    RowSet above;
    std::optional<RowSet> equal;  // none: all rows
    for (size_t i = digits_.size(); i-- > 0;) {
      if (((minimum_ >> i) & 1) != 0) {
        if (equal) {
          equal->and_with(digits_[i]);
        } else {
          equal = std::move(digits_[i]);
        }
        continue;
      }
      RowSet more = std::move(digits_[i]);
      if (equal) {
        const RowSet with_digit = more;
        more.and_with(*equal);
        equal->and_not_with(with_digit);
      }
      above.or_with(more);
    }
    if (equal) above.or_with(*equal);
    return above;
  }

 private:
  size_t minimum_;
  std::vector<RowSet> digits_;
};

/// Recurses once per nesting level of the filter, at most kNestingMax deep.
/// Thread safety: single owner.
class Evaluator {
 public:
  Evaluator(const std::vector<FilterStep>& steps, const std::vector<FilterOperand>& operands,
            const FieldIndex& index)
      : steps_(steps), operands_(operands), index_(index), rows_(index.rows_count()) {}

  Bounds sets(const FilterNode& node) const;
  CountBounds counts(const FilterNode& node) const;

 private:
  Bounds test_sets(const FilterStep& step) const;
  Bounds group_sets(const FilterNode& group) const;
  Bounds should_sets(const FilterNode& group) const;
  Bounds all_of(const FieldReader& field, FilterOperands wanted) const;
  CountBounds test_counts(const FilterStep& step) const;
  CountBounds group_counts(const FilterNode& group) const;
  CountBounds should_counts(const FilterNode& group) const;
  void keep(Bounds part, std::optional<Bounds>* so_far) const;
  void drop(const Bounds& part, Bounds* from) const;

  FilterOperands operands_of(const FilterStep& step) const {
    return FilterOperands(operands_).subspan(step.operands_begin, step.operands_count);
  }
  /// What an all-or-nothing test selects. REQUIRES: not kContainsAll of several values.
  Selection select(const FilterStep& step, const FieldReader& field) const;
  Bounds everything() const { return {RowSet::all(rows_), {}, true}; }
  Bounds unknown() const { return {RowSet::all(rows_), {}, false}; }
  CountBounds negated(CountBounds bounds) const {
    return {rows_ - bounds.upper, rows_ - bounds.lower};
  }

  const std::vector<FilterStep>& steps_;
  const std::vector<FilterOperand>& operands_;
  const FieldIndex& index_;
  uint64_t rows_;
};

Selection Evaluator::select(const FilterStep& step, const FieldReader& field) const {
  Selection selection(rows_);
  FieldSelector selector(field, &selection);
  const FilterOperands operands = operands_of(step);
  switch (step.kind) {
    case FilterStepKind::kRange: selector.in_range(operands); break;
    case FilterStepKind::kPrefix: selector.starts_with(operands[0].text); break;
    case FilterStepKind::kExists: selector.exists(); break;
    default:
      if (step.kind == FilterStepKind::kContainsAll && operands.empty()) selector.exists();
      for (const FilterOperand& operand : operands) selector.equal_to(operand.scalar());
  }
  return selection;
}

// ---- Sets ---------------------------------------------------------------------------------------

Bounds Evaluator::sets(const FilterNode& node) const {
  switch (node.kind) {
    case FilterNode::Kind::kTest: return test_sets(steps_[node.step]);
    case FilterNode::Kind::kNotTest: {
      Bounds bounds = everything();
      drop(test_sets(steps_[node.step]), &bounds);
      return bounds;
    }
    case FilterNode::Kind::kNever: return {};
    case FilterNode::Kind::kGroup: break;
  }
  return group_sets(node);
}

Bounds Evaluator::test_sets(const FilterStep& step) const {
  const FieldIndexReader::Found found = FieldIndexReader(index_).find(step.field);
  if (found.rows_count_max == 0) return {};
  if (!found.field) return unknown();
  const FilterOperands operands = operands_of(step);
  if (step.kind == FilterStepKind::kContainsAll && operands.size() > 1) {
    return all_of(*found.field, operands);
  }
  auto set = select(step, *found.field).to_set();
  return set ? Bounds{std::move(*set), {}, true} : unknown();
}

Bounds Evaluator::all_of(const FieldReader& field, FilterOperands wanted) const {
  std::vector<Selection> parts;
  for (const FilterOperand& operand : wanted) {
    parts.emplace_back(rows_);
    FieldSelector(field, &parts.back()).equal_to(operand.scalar());
  }
  std::sort(parts.begin(), parts.end(), [](const Selection& a, const Selection& b) {
    return a.count_bounds().upper < b.count_bounds().upper;
  });
  std::optional<Bounds> so_far;
  for (const Selection& part : parts) {
    auto set = part.to_set();
    keep(set ? Bounds{std::move(*set), {}, true} : unknown(), &so_far);
    if (so_far->upper.empty()) break;
  }
  return so_far ? std::move(*so_far) : everything();
}

/// so_far = so_far and part.
void Evaluator::keep(Bounds part, std::optional<Bounds>* so_far) const {
  if (!*so_far) {
    *so_far = std::move(part);
    return;
  }
  Bounds& out = **so_far;
  if (out.exact && !part.exact) out.lower = out.upper;
  if (!out.exact || !part.exact) {
    out.lower.and_with(part.certain());
    out.exact = false;
  }
  out.upper.and_with(part.upper);
  if (out.upper.empty()) out = Bounds();
}

/// from = from and not part.
void Evaluator::drop(const Bounds& part, Bounds* from) const {
  if (from->exact && !part.exact) from->lower = from->upper;
  if (!from->exact || !part.exact) {
    from->lower.and_not_with(part.upper);
    from->exact = false;
  }
  from->upper.and_not_with(part.certain());
  if (from->upper.empty()) *from = Bounds();
}

Bounds Evaluator::group_sets(const FilterNode& group) const {
  // The clause with the fewest rows first: the sets only shrink, and an empty one ends it.
  std::vector<std::pair<uint64_t, const FilterNode*>> must;
  for (const FilterNode& node : group.must) {
    const bool single = group.must.size() == 1;
    const bool is_group = node.kind == FilterNode::Kind::kGroup;
    must.emplace_back(is_group ? rows_ : single ? 0 : counts(node).upper, &node);
  }
  std::stable_sort(must.begin(), must.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::optional<Bounds> so_far;
  for (const auto& [count, node] : must) {
    keep(sets(*node), &so_far);
    if (so_far->upper.empty()) return {};
  }
  if (group.minimum > 0) keep(should_sets(group), &so_far);
  if (!so_far) so_far = everything();
  for (const FilterNode& node : group.must_not) {
    if (so_far->upper.empty()) return {};
    drop(sets(node), &*so_far);
  }
  return std::move(*so_far);
}

Bounds Evaluator::should_sets(const FilterNode& group) const {
  RowCounter upper(group.minimum);
  std::optional<RowCounter> lower;  // none: as `upper`
  for (const FilterNode& node : group.should) {
    const Bounds part = sets(node);
    if (!part.exact && !lower) lower = upper;
    upper.add(part.upper);
    if (lower) lower->add(part.certain());
  }
  Bounds out;
  out.exact = !lower;
  out.upper = std::move(upper).take();
  if (lower) out.lower = std::move(*lower).take();
  return out;
}

// ---- Counts -------------------------------------------------------------------------------------

CountBounds Evaluator::counts(const FilterNode& node) const {
  switch (node.kind) {
    case FilterNode::Kind::kTest: return test_counts(steps_[node.step]);
    case FilterNode::Kind::kNotTest: return negated(test_counts(steps_[node.step]));
    case FilterNode::Kind::kNever: return {};
    case FilterNode::Kind::kGroup: break;
  }
  return group_counts(node);
}

CountBounds Evaluator::test_counts(const FilterStep& step) const {
  const FieldIndexReader::Found found = FieldIndexReader(index_).find(step.field);
  const uint64_t most = std::min(found.rows_count_max, rows_);
  if (step.kind == FilterStepKind::kExists && found.field) return {most, most};
  if (!found.field) return {0, most};
  const FilterOperands operands = operands_of(step);
  if (step.kind != FilterStepKind::kContainsAll || operands.size() <= 1) {
    const Selection selection = select(step, *found.field);
    if (selection.damaged()) return {0, most};
    const CountBounds bounds = selection.count_bounds();
    return {std::min(bounds.lower, most), std::min(bounds.upper, most)};
  }
  CountBounds out{most, most};
  for (const FilterOperand& operand : operands) {
    Selection selection(rows_);
    FieldSelector(*found.field, &selection).equal_to(operand.scalar());
    if (selection.damaged()) return {0, most};
    const CountBounds part = selection.count_bounds();
    const uint64_t without = most - std::min(part.lower, most);
    out.lower -= std::min(out.lower, without);
    out.upper = std::min(out.upper, part.upper);
  }
  return out;
}

CountBounds Evaluator::group_counts(const FilterNode& group) const {
  CountBounds out{rows_, rows_};
  const auto keep_counts = [&](CountBounds part) {
    out.lower -= std::min(out.lower, rows_ - part.lower);
    out.upper = std::min(out.upper, part.upper);
  };
  for (const FilterNode& node : group.must) keep_counts(counts(node));
  for (const FilterNode& node : group.must_not) keep_counts(negated(counts(node)));
  if (group.minimum > 0) keep_counts(should_counts(group));
  return out;
}

CountBounds Evaluator::should_counts(const FilterNode& group) const {
  // With x rows in at least `minimum` of the n sets, the sizes of the sets add up to at least
  // x * minimum, and to at most x * n + (rows - x) * (minimum - 1).
  uint64_t lower_total = 0;
  uint64_t upper_total = 0;
  uint64_t lower_most = 0;
  for (const FilterNode& node : group.should) {
    const CountBounds part = counts(node);
    lower_total += part.lower;
    upper_total += part.upper;
    lower_most = std::max(lower_most, part.lower);
  }
  const uint64_t elsewhere = rows_ * (group.minimum - 1);
  const uint64_t places = group.should.size() - group.minimum + 1;
  CountBounds out;
  if (lower_total > elsewhere) out.lower = (lower_total - elsewhere + places - 1) / places;
  if (group.minimum == 1) out.lower = lower_most;
  out.upper = std::min(upper_total / group.minimum, rows_);
  return out;
}

}  // namespace

IndexAnswer CompiledFilter::evaluate(const FieldIndex& index) const {
  const Evaluator evaluator(program_->steps, program_->operands, index);
  Bounds bounds = evaluator.sets(program_->root);
  // Between two equal bounds nothing is open.
  if (!bounds.exact && bounds.upper == bounds.lower) bounds.exact = true;
  return {std::move(bounds.upper), bounds.exact};
}

CountBounds CompiledFilter::estimate(const FieldIndex& index) const {
  const Evaluator evaluator(program_->steps, program_->operands, index);
  return evaluator.counts(program_->root);
}

}  // namespace aionbd

// Compiling filters to jump code and running it over encoded payloads.
//
// Each test of a field becomes one step with a target for true and one for false; "all", "any" and
// "none" are nothing but the choice of targets (the classic translation of boolean expressions with
// inherited labels: Aho, Sethi, Ullman, "Compilers", 1986, section 8.4). So a filter of any depth
// runs as one loop over a flat list, and every jump goes forward, which bounds the run by the
// number of steps. Only a minimum_should_match above 1 needs state: a counter, one per nesting
// level, because filters at the same level never overlap in time.
#include "payload/filter.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "aionbd/types.h"
#include "base/utf8.h"
#include "payload/filter_program.h"
#include "payload/stored_field.h"

namespace aionbd {

namespace {

// ---- Running ------------------------------------------------------------------------------------

/// The operand equal to `element`, or null. REQUIRES: `operands` sorted by order_scalars.
const FilterOperand* find_operand(FilterOperands operands, const Scalar& element) {
  size_t low = 0;
  size_t high = operands.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const int order = order_scalars(element, operands[middle].scalar());
    if (order == 0) return &operands[middle];
    (order < 0 ? high : low) = order < 0 ? middle : middle + 1;
  }
  return nullptr;
}

bool contains_all(const StoredValue& value, FilterOperands operands) {
  if (operands.empty()) return true;
  std::bitset<kFilterClausesMax> seen;
  size_t missing = operands.size();
  return any_element(value, [&](const Scalar& element) {
    const FilterOperand* found = find_operand(operands, element);
    if (found == nullptr) return false;
    const auto i = static_cast<size_t>(found - operands.data());
    if (seen[i]) return false;
    seen[i] = true;
    return --missing == 0;
  });
}

bool within(const Scalar& element, FilterOperands bounds) {
  if (!is_number(element.tag)) return false;
  return std::all_of(bounds.begin(), bounds.end(), [&](const FilterOperand& bound) {
    const int order = order_numbers(element, bound.scalar());
    switch (bound.bound) {
      case BoundKind::kGt: return order > 0;
      case BoundKind::kGte: return order >= 0;
      case BoundKind::kLt: return order < 0;
      case BoundKind::kLte: return order <= 0;
    }
    return false;
  });
}

bool test_field(const FilterStep& step, FilterOperands operands, Bytes payload) {
  const auto value = find_field(payload, step.field, step.first_dot);
  if (!value) return false;
  switch (step.kind) {
    case FilterStepKind::kEquals: {
      const Scalar wanted = operands[0].scalar();
      return any_element(*value, [&](const Scalar& e) { return order_scalars(e, wanted) == 0; });
    }
    case FilterStepKind::kAnyOf:
      return any_element(*value,
                         [&](const Scalar& e) { return find_operand(operands, e) != nullptr; });
    case FilterStepKind::kContainsAll: return contains_all(*value, operands);
    case FilterStepKind::kRange:
      return any_element(*value, [&](const Scalar& e) { return within(e, operands); });
    case FilterStepKind::kPrefix:
      return any_element(*value, [&](const Scalar& e) {
        return e.tag == ValueTag::kString && e.text.starts_with(operands[0].text);
      });
    case FilterStepKind::kExists: return true;
    case FilterStepKind::kJump:
    case FilterStepKind::kResetCount:
    case FilterStepKind::kCount: break;
  }
  return false;
}

}  // namespace

bool CompiledFilter::Program::matches(Bytes payload) const {
  std::array<uint32_t, kNestingMax> counts;  // each set by kResetCount before it is used
  size_t at = 0;
  while (at < steps.size()) {
    const FilterStep& step = steps[at];
    bool holds = true;
    switch (step.kind) {
      case FilterStepKind::kJump: break;
      case FilterStepKind::kResetCount: counts[step.level] = 0; break;
      case FilterStepKind::kCount: holds = ++counts[step.level] >= step.needed; break;
      default: holds = test_field(step, operands_of(step), payload);
    }
    at = holds ? step.on_true : step.on_false;
  }
  return at == steps.size();
}

// ---- Compiling ----------------------------------------------------------------------------------

namespace {

/// Emits steps whose targets are labels; `finish` turns labels into positions.
/// Recurses once per nesting level of the filter, at most kNestingMax deep.
/// Thread safety: single owner.
class FilterCompiler {
 public:
  FilterCompiler(std::vector<FilterStep>* steps, std::vector<FilterOperand>* operands)
      : steps_(*steps), operands_(*operands) {}

  Status compile(const Filter& filter, FilterNode* root) {
    const FilterTarget accept = new_label();
    const FilterTarget refuse = new_label();
    RETURN_IF_ERROR(add_filter(filter, 1, accept, refuse, root));
    positions_[accept] = static_cast<FilterTarget>(steps_.size());
    positions_[refuse] = static_cast<FilterTarget>(steps_.size() + 1);
    for (FilterStep& step : steps_) {
      step.on_true = positions_[step.on_true];
      step.on_false = positions_[step.on_false];
    }
    return {};
  }

 private:
  FilterTarget new_label() {
    positions_.push_back(0);
    return static_cast<FilterTarget>(positions_.size() - 1);
  }
  void bind(FilterTarget label) { positions_[label] = static_cast<FilterTarget>(steps_.size()); }

  Status add_filter(const Filter& filter, size_t level, FilterTarget on_true, FilterTarget on_false,
                    FilterNode* node) {
    if (level > kNestingMax) {
      return invalid_argument("filter is nested too deeply: at most " +
                              std::to_string(kNestingMax) + " levels");
    }
    const size_t minimum = filter.minimum_should_match.value_or(filter.should.empty() ? 0 : 1);
    if (minimum > filter.should.size()) {
      return invalid_argument(
          path_ + ".minimum_should_match exceeds the number of should clauses: " + "got " +
          std::to_string(minimum) + ", have " + std::to_string(filter.should.size()));
    }
    // The last part that can refuse goes to `on_true` itself, the ones before it to the next part.
    size_t parts_left = filter.must.size() + filter.must_not.size() + (minimum > 0 ? 1 : 0);
    if (parts_left == 0) add_jump(on_true);
    const auto after_part = [&] { return --parts_left == 0 ? on_true : new_label(); };
    const auto bind_part = [&](FilterTarget label) {
      if (label != on_true) bind(label);
    };
    for (size_t i = 0; i < filter.must.size(); ++i) {
      const FilterTarget next = after_part();
      RETURN_IF_ERROR(add_clause(filter.must[i], ".must", i, level, next, on_false,
                                 &node->must.emplace_back()));
      bind_part(next);
    }
    for (size_t i = 0; i < filter.must_not.size(); ++i) {
      const FilterTarget next = after_part();
      RETURN_IF_ERROR(add_clause(filter.must_not[i], ".must_not", i, level, on_false, next,
                                 &node->must_not.emplace_back()));
      bind_part(next);
    }
    if (minimum == 0) return check_unused(filter.should, level);
    const FilterTarget next = after_part();
    node->minimum = minimum;
    return add_should(filter.should, level, minimum, next, on_false, node);
  }

  /// Compiles clauses that cannot matter for their errors only.
  Status check_unused(const std::vector<Clause>& should, size_t level) {
    const size_t steps_count = steps_.size();
    const size_t operands_count = operands_.size();
    const FilterTarget nowhere = new_label();
    std::vector<FilterNode> unused;
    for (size_t i = 0; i < should.size(); ++i) {
      RETURN_IF_ERROR(
          add_clause(should[i], ".should", i, level, nowhere, nowhere, &unused.emplace_back()));
    }
    steps_.resize(steps_count);
    operands_.erase(operands_.begin() + static_cast<std::ptrdiff_t>(operands_count),
                    operands_.end());
    return {};
  }

  Status add_should(const std::vector<Clause>& should, size_t level, size_t minimum,
                    FilterTarget on_true, FilterTarget on_false, FilterNode* node) {
    if (minimum > 1) {
      const FilterTarget begin = new_label();
      FilterStep reset;
      reset.kind = FilterStepKind::kResetCount;
      reset.level = level - 1;
      reset.on_true = begin;
      reset.on_false = begin;
      steps_.push_back(std::move(reset));
      bind(begin);
    }
    for (size_t i = 0; i < should.size(); ++i) {
      const bool last = i + 1 == should.size();
      const FilterTarget next = last ? on_false : new_label();
      const FilterTarget hit = minimum == 1 ? on_true : new_label();
      RETURN_IF_ERROR(
          add_clause(should[i], ".should", i, level, hit, next, &node->should.emplace_back()));
      if (minimum > 1) {
        bind(hit);
        FilterStep count;
        count.kind = FilterStepKind::kCount;
        count.level = level - 1;
        count.needed = static_cast<uint32_t>(minimum);
        count.on_true = on_true;
        count.on_false = next;
        steps_.push_back(std::move(count));
      }
      if (!last) bind(next);
    }
    return {};
  }

  Status add_clause(const Clause& clause, std::string_view list, size_t index, size_t level,
                    FilterTarget on_true, FilterTarget on_false, FilterNode* node) {
    if (++clauses_count_ > kFilterClausesMax) {
      return invalid_argument("filter has too many clauses: at most " +
                              std::to_string(kFilterClausesMax));
    }
    const size_t path_size = path_.size();
    path_ += list;
    path_ += '[' + std::to_string(index) + ']';
    RETURN_IF_ERROR(clause.nested ? add_filter(*clause.nested, level + 1, on_true, on_false, node)
                                  : add_test(clause, on_true, on_false, node));
    path_.resize(path_size);
    return {};
  }

  Status add_test(const Clause& clause, FilterTarget on_true, FilterTarget on_false,
                  FilterNode* node) {
    if (is_blank(clause.field)) return invalid_argument(path_ + ".field must not be blank");
    FilterStep step;
    step.field = clause.field;
    step.first_dot = clause.field.find('.');
    step.operands_begin = operands_.size();
    step.on_true = on_true;
    step.on_false = on_false;
    RETURN_IF_ERROR(
        std::visit([&](const auto& test) { return set_test(test, &step); }, clause.test));
    step.operands_count = operands_.size() - step.operands_begin;
    node->kind = FilterNode::Kind::kTest;
    if (step.kind == FilterStepKind::kJump) node->kind = FilterNode::Kind::kNever;
    if (const auto* exists = std::get_if<Exists>(&clause.test); exists && !exists->exists) {
      node->kind = FilterNode::Kind::kNotTest;
    }
    node->step = steps_.size();
    steps_.push_back(std::move(step));
    return {};
  }

  Status set_test(const EqualTo& test, FilterStep* step) {
    const auto wanted = scalar_of(test.value);
    if (!wanted) return never(step);
    step->kind = FilterStepKind::kEquals;
    operands_.emplace_back(*wanted);
    return {};
  }

  Status set_test(const AnyOf& test, FilterStep* step) {
    step->kind = FilterStepKind::kAnyOf;
    for (const Value& value : test.values) {
      if (const auto wanted = scalar_of(value)) operands_.emplace_back(*wanted);
    }
    sort_operands(step->operands_begin);
    return operands_.size() == step->operands_begin ? never(step) : Status();
  }

  Status set_test(const ContainsAll& test, FilterStep* step) {
    if (test.values.size() > kFilterClausesMax) {
      return invalid_argument(path_ + ".contains_all has too many values: at most " +
                              std::to_string(kFilterClausesMax) + ", got " +
                              std::to_string(test.values.size()));
    }
    step->kind = FilterStepKind::kContainsAll;
    for (const Value& value : test.values) {
      const auto wanted = scalar_of(value);
      if (!wanted) return never(step);
      operands_.emplace_back(*wanted);
    }
    sort_operands(step->operands_begin);
    return {};
  }

  Status set_test(const InRange& test, FilterStep* step) {
    step->kind = FilterStepKind::kRange;
    RETURN_IF_ERROR(add_bound(test.gt, BoundKind::kGt, ".gt"));
    RETURN_IF_ERROR(add_bound(test.gte, BoundKind::kGte, ".gte"));
    RETURN_IF_ERROR(add_bound(test.lt, BoundKind::kLt, ".lt"));
    RETURN_IF_ERROR(add_bound(test.lte, BoundKind::kLte, ".lte"));
    if (operands_.size() == step->operands_begin) {
      return invalid_argument(path_ + " needs at least one of gt, gte, lt, lte");
    }
    return {};
  }

  Status set_test(const Exists& test, FilterStep* step) {
    step->kind = FilterStepKind::kExists;
    if (!test.exists) std::swap(step->on_true, step->on_false);
    return {};
  }

  Status set_test(const StartsWith& test, FilterStep* step) {
    step->kind = FilterStepKind::kPrefix;
    operands_.emplace_back(Scalar{ValueTag::kString, 0, test.prefix});
    return {};
  }

  Status add_bound(const std::optional<Value>& value, BoundKind kind, std::string_view name) {
    if (!value) return {};
    const auto bound = scalar_of(*value);
    if (!bound || !is_number(bound->tag)) {
      return invalid_argument(path_ + std::string(name) + " must be a finite number");
    }
    operands_.emplace_back(*bound).bound = kind;
    return {};
  }

  /// Makes `step` a test that no payload passes.
  static Status never(FilterStep* step) {
    step->kind = FilterStepKind::kJump;
    step->on_true = step->on_false;
    return {};
  }

  void add_jump(FilterTarget target) {
    FilterStep step;
    step.on_true = target;
    step.on_false = target;
    steps_.push_back(std::move(step));
  }

  /// Sorts the operands from `begin` on and drops equal ones (1 and 1.0 are equal).
  void sort_operands(size_t begin) {
    const auto first = operands_.begin() + static_cast<std::ptrdiff_t>(begin);
    std::sort(first, operands_.end(), [](const FilterOperand& a, const FilterOperand& b) {
      return order_scalars(a.scalar(), b.scalar()) < 0;
    });
    const auto equal = [](const FilterOperand& a, const FilterOperand& b) {
      return order_scalars(a.scalar(), b.scalar()) == 0;
    };
    operands_.erase(std::unique(first, operands_.end(), equal), operands_.end());
  }

  std::vector<FilterStep>& steps_;
  std::vector<FilterOperand>& operands_;
  std::vector<FilterTarget> positions_;  // by label
  std::string path_ = "filter";          // of the filter or clause being compiled, for messages
  size_t clauses_count_ = 0;
};

}  // namespace

CompiledFilter::CompiledFilter(std::unique_ptr<Program> program) : program_(std::move(program)) {}
CompiledFilter::CompiledFilter(CompiledFilter&&) noexcept = default;
CompiledFilter& CompiledFilter::operator=(CompiledFilter&&) noexcept = default;
CompiledFilter::~CompiledFilter() = default;

Result<CompiledFilter> CompiledFilter::compile(const Filter& filter) {
  auto program = std::make_unique<Program>();
  RETURN_IF_ERROR(
      FilterCompiler(&program->steps, &program->operands).compile(filter, &program->root));
  return CompiledFilter(std::move(program));
}

bool CompiledFilter::matches(Bytes payload) const {
  return program_->matches(payload);
}

}  // namespace aionbd

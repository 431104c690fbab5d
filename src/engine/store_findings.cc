#include "engine/store_findings.h"

#include <charconv>

namespace aionbd {
namespace {

constexpr std::string_view kAtOffset = " at offset ";

/// Cuts `text` of [begin, end) and of the ": " before it.
void cut(std::string& text, size_t begin, size_t end) {
  if (begin >= 2 && text.compare(begin - 2, 2, ": ") == 0) begin -= 2;
  text.erase(begin, end - begin);
}

}  // namespace

StoreFinding finding_of(const Status& status, std::string_view dir, std::string_view file) {
  StoreFinding out{FindingKind::kDamage, std::string(file), std::nullopt, status.message()};
  const std::string quoted = "'" + std::string(dir) + "/";
  const size_t begin = out.what.find(quoted);
  if (begin == std::string::npos) return out;
  const size_t name = begin + quoted.size();
  const size_t close = out.what.find('\'', name);
  if (close == std::string::npos) return out;
  out.file = out.what.substr(name, close - name);
  size_t end = close + 1;
  const std::string_view rest = std::string_view(out.what).substr(end);
  if (rest.starts_with(kAtOffset)) {
    const char* const digits = rest.data() + kAtOffset.size();
    uint64_t offset = 0;
    const auto parsed = std::from_chars(digits, rest.data() + rest.size(), offset);
    if (parsed.ec == std::errc()) {
      out.offset = offset;
      end += kAtOffset.size() + static_cast<size_t>(parsed.ptr - digits);
    }
    // Only a place at the end of a sentence can be cut out of it.
    cut(out.what, begin, end);
  } else if (end == out.what.size()) {
    cut(out.what, begin, end);
  }
  return out;
}

void Findings::add(StoreFinding finding) {
  ++(finding.kind == FindingKind::kDamage ? damage_ : notes_);
  if (kept_.size() < kFindingsMax) kept_.push_back(std::move(finding));
}

Status ProgressMeter::advance(uint64_t bytes) {
  done_ += bytes;
  if (within(0)) return {};
  return unavailable("stopped before the end");
}

}  // namespace aionbd

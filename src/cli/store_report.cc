#include "cli/store_report.h"

#include <fmt/format.h>

#include "base/utf8.h"
#include "cli/command.h"
#include "cli/row_encoder.h"

namespace aionbd {

namespace {

/// Values here are made by us and nest a few levels.
struct JsonWriter {
  std::string* out;

  void operator()(std::nullptr_t) const { *out += "null"; }
  void operator()(bool value) const { *out += value ? "true" : "false"; }
  void operator()(int64_t value) const { *out += std::to_string(value); }
  void operator()(uint64_t value) const { *out += std::to_string(value); }
  void operator()(double value) const { *out += fmt::format("{}", value); }
  void operator()(const std::string& value) const { append_json_string(printable(value), out); }
  void operator()(const Value::Array& values) const {
    *out += '[';
    for (const Value& value : values) {
      if (&value != values.data()) *out += ',';
      append_json_value(value, out);
    }
    *out += ']';
  }
  void operator()(const Value::Object& object) const {
    *out += '{';
    bool first = true;
    for (const auto& [key, value] : object) {
      if (!first) *out += ',';
      first = false;
      append_json_string(printable(key), out);
      *out += ':';
      append_json_value(value, out);
    }
    *out += '}';
  }
};

}  // namespace

void append_json_value(const Value& value, std::string* out) {
  std::visit(JsonWriter{out}, value.data());
}

std::string printable(std::string_view text) {
  std::string out(text);
  const bool utf8 = is_utf8(text);
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F || (byte > 0x7F && !utf8)) c = '?';
  }
  return out;
}

std::string finding_line(const StoreFinding& finding) {
  std::string line = finding.kind == FindingKind::kDamage ? "damaged  " : "note     ";
  if (!finding.file.empty()) line += printable(finding.file);
  if (finding.offset) line += " at offset " + std::to_string(*finding.offset);
  if (!finding.file.empty()) line += ": ";
  return line + printable(finding.what);
}

Value findings_value(std::span<const StoreFinding> findings) {
  Value::Array out;
  for (const StoreFinding& finding : findings) {
    Value::Object one;
    one["kind"] = finding.kind == FindingKind::kDamage ? "damaged" : "note";
    if (!finding.file.empty()) one["file"] = finding.file;
    if (finding.offset) one["offset"] = *finding.offset;
    one["what"] = finding.what;
    out.push_back(std::move(one));
  }
  return out;
}

StoreProgressBar::StoreProgressBar(bool quiet)
    : bar_(system_clock_source(), quiet ? Progress::Style::kQuiet : Progress::Style::kAuto) {}

StoreProgress StoreProgressBar::callback() {
  return [this](uint64_t done, uint64_t total) {
    ProgressState state;
    state.counts_rows = false;
    state.bytes = done;
    if (total > 0) state.share = static_cast<double>(done) / static_cast<double>(total);
    bar_.update(state);
    return !stop_signal().load();
  };
}

}  // namespace aionbd

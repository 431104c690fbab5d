// `aionbd inspect`: the program's own tables, for people, for docs/ and for other programs; and the
// structure of a store's files.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>

#include "aionbd/database.h"
#include "aionbd/store.h"
#include "cli/command.h"
#include "cli/row_encoder.h"
#include "cli/store_report.h"
#include "server/exporter.h"
#include "server/routes.h"
#include "server/settings.h"

namespace aionbd {
namespace {

enum class Form : uint8_t { kText, kMarkdown, kJson };

/// A table of text.
struct Table {
  std::vector<std::string> keys;  // of the JSON objects
  std::vector<std::vector<std::string>> rows;
};

std::string escaped_cell(std::string text) {
  for (size_t bar = text.find('|'); bar != std::string::npos; bar = text.find('|', bar + 2)) {
    text.insert(bar, "\\");
  }
  return text;
}

std::string print_markdown(const Table& table) {
  std::string out = fmt::format("| {} |\n|", fmt::join(table.keys, " | "));
  for (size_t i = 0; i < table.keys.size(); ++i) out += "---|";
  out += '\n';
  for (const auto& row : table.rows) {
    out += '|';
    for (size_t i = 0; i < row.size(); ++i) {
      out += fmt::format(" {} |", i == 0 ? "`" + row[i] + "`" : escaped_cell(row[i]));
    }
    out += '\n';
  }
  return out;
}

std::string print_json(const Table& table) {
  std::string out = "[";
  for (const auto& row : table.rows) {
    out += out.size() == 1 ? "\n {" : ",\n {";
    for (size_t i = 0; i < row.size(); ++i) {
      if (i > 0) out += ',';
      append_json_string(table.keys[i], &out);
      out += ':';
      append_json_string(row[i], &out);
    }
    out += '}';
  }
  return out + "\n]\n";
}

std::string print_text(const Table& table) {
  std::vector<size_t> widths(table.keys.size(), 0);
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const bool last = i + 1 == row.size();
      out += last ? row[i] : fmt::format("{:<{}}  ", row[i], widths[i]);
    }
    out += '\n';
  }
  return out;
}

std::string print(const Table& table, Form form) {
  switch (form) {
    case Form::kText: return print_text(table);
    case Form::kMarkdown: return print_markdown(table);
    case Form::kJson: return print_json(table);
  }
  return {};
}

Table settings_table() {
  Table table{{"variable", "flag", "key", "default", "unit", "help"}, {}};
  for (const SettingRow& row : setting_rows()) {
    table.rows.push_back({setting_variable(row), setting_flag(row), std::string(row.name),
                          std::string(row.default_text), std::string(row.unit),
                          std::string(row.help)});
  }
  return table;
}

Table routes_table() {
  Table table{{"route", "scope", "class", "summary"}, {}};
  for (const Route& route : routes()) {
    table.rows.push_back({fmt::format("{} {}", method_name(route.method), route.pattern),
                          std::string(scope_name(route.scope)),
                          std::string(route_class_name(route.route_class)),
                          std::string(route.summary)});
  }
  return table;
}

const char* kind_name(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter: return "counter";
    case MetricKind::kGauge: return "gauge";
    case MetricKind::kHistogram: return "histogram";
  }
  return "";
}

Table metrics_table() {
  Table table{{"name", "kind", "unit", "help"}, {}};
  std::set<std::string_view> seen;
  const auto add = [&](const MetricRow& row) {
    if (!seen.insert(row.name).second) return;
    table.rows.push_back(
        {std::string(row.name), kind_name(row.kind), std::string(row.unit), std::string(row.help)});
  };
  for (const MetricRow* row : server_metric_rows()) add(*row);
  for (const MetricRow* row : Database::metric_rows()) add(*row);
  for (const MetricRow& row : engine_rows_expected()) add(row);
  return table;
}

// ---- Files --------------------------------------------------------------------------------------

std::string plain(const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value.data())) return printable(*text);
  if (std::holds_alternative<std::nullptr_t>(value.data())) return "-";
  if (const auto* list = std::get_if<Value::Array>(&value.data())) {
    std::string out;
    for (const Value& item : *list) out += (out.empty() ? "" : ", ") + plain(item);
    return out.empty() ? "-" : out;
  }
  std::string out;
  append_json_value(value, &out);
  return out;
}

/// Objects as "name  value" lines, list items as one line each.
class TextPrinter final : public FileVisitor {
 public:
  void object(std::string_view part, std::span<const FileField> fields) override {
    fmt::print("{}\n", part);
    size_t width = 0;
    for (const FileField& field : fields) width = std::max(width, field.name.size());
    for (const FileField& field : fields) {
      fmt::print("  {:<{}}  {}\n", field.name, width, plain(field.value));
    }
  }
  void begin_list(std::string_view part) override { fmt::print("{}\n", part); }
  void item(std::span<const FileField> fields) override {
    std::string line = " ";
    for (const FileField& field : fields) {
      line += fmt::format(" {}={}", field.name, plain(field.value));
    }
    fmt::print("{}\n", line);
  }
  void end_list() override {}
};

/// One object whose members are the parts; a list is written item by item.
class JsonPrinter final : public FileVisitor {
 public:
  void object(std::string_view part, std::span<const FileField> fields) override {
    key(part);
    fmt::print("{}", text_of(fields));
  }
  void begin_list(std::string_view part) override {
    key(part);
    fmt::print("[");
    first_item_ = true;
  }
  void item(std::span<const FileField> fields) override {
    fmt::print("{}\n  {}", first_item_ ? "" : ",", text_of(fields));
    first_item_ = false;
  }
  void end_list() override { fmt::print("]"); }
  void finish(const Status& status) {
    key("error");
    std::string text;
    append_json_value(status.ok() ? Value() : Value(status.message()), &text);
    fmt::print("{}\n}}\n", text);
  }

 private:
  void key(std::string_view part) {
    fmt::print("{}\"{}\":", first_part_ ? "{\n " : ",\n ", part);
    first_part_ = false;
  }
  static std::string text_of(std::span<const FileField> fields) {
    std::string out = "{";
    for (const FileField& field : fields) {
      if (out.size() > 1) out += ',';
      append_json_string(field.name, &out);
      out += ':';
      append_json_value(field.value, &out);
    }
    return out + "}";
  }
  bool first_part_ = true;
  bool first_item_ = true;
};

int inspect_file(const std::string& path, bool json) {
  TextPrinter text;
  JsonPrinter object;
  const Status status = describe_file(
      path, json ? static_cast<FileVisitor&>(object) : static_cast<FileVisitor&>(text));
  if (json) object.finish(status);
  std::fflush(stdout);
  return status.ok() ? kExitOk : exit_with("inspect", status);
}

// ---- The command --------------------------------------------------------------------------------

constexpr const char* kInspectExamples =
    R"(A name that is no table is a file: a manifest, a log, a segment or an index is shown
with its header, its sections or frames, and where it is damaged (then the exit code
is 65). A table's name as a file: ./settings.

Examples:
  aionbd inspect settings
  aionbd inspect routes --markdown
  aionbd inspect data/MANIFEST
  aionbd inspect data/wal-0000000000000001.log --json | jq '.frames[-1]')";

struct InspectFlags {
  std::string what;
  bool markdown = false;
  bool json = false;
};

int run(const InspectFlags& flags) {
  const bool table_name =
      flags.what == "settings" || flags.what == "routes" || flags.what == "metrics";
  if (!table_name) {
    if (!flags.markdown) return inspect_file(flags.what, flags.json);
    return exit_with("inspect", invalid_argument("--markdown is for settings, routes and metrics"));
  }
  const Form form = flags.json ? Form::kJson : flags.markdown ? Form::kMarkdown : Form::kText;
  if (flags.what == "settings" && form != Form::kJson) {
    fmt::print("{}", print_settings(form == Form::kMarkdown ? TableFormat::kMarkdown
                                                            : TableFormat::kText));
    return kExitOk;
  }
  const Table table = flags.what == "settings" ? settings_table()
                      : flags.what == "routes" ? routes_table()
                                               : metrics_table();
  fmt::print("{}", print(table, form));
  return kExitOk;
}

}  // namespace

CommandRun declare_inspect(Arguments args) {
  auto flags = std::make_shared<InspectFlags>();
  args.option("WHAT", flags->what, "settings, routes, metrics, or a file of a data directory")
      .required();
  Argument markdown = args.flag("--markdown", flags->markdown, "As a Markdown table");
  args.flag("--json", flags->json, "As JSON").excludes(markdown);
  args.footer(kInspectExamples);
  return [flags] { return run(*flags); };
}

}  // namespace aionbd

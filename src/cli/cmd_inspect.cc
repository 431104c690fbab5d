// `aionbd inspect`: the program's own tables, for people, for docs/ and for other programs.
#include <fmt/format.h>

#include <memory>
#include <set>

#include "aionbd/database.h"
#include "cli/command.h"
#include "cli/row_encoder.h"
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

struct InspectFlags {
  std::string what;
  bool markdown = false;
  bool json = false;
};

int run(const InspectFlags& flags) {
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

CommandRun declare_inspect(CLI::App& app) {
  auto flags = std::make_shared<InspectFlags>();
  app.add_option("TABLE", flags->what, "settings, routes or metrics")
      ->required()
      ->check(CLI::IsMember({"settings", "routes", "metrics"}));
  CLI::Option* markdown = app.add_flag("--markdown", flags->markdown, "As a Markdown table");
  app.add_flag("--json", flags->json, "As JSON")->excludes(markdown);
  app.footer("Examples:\n  aionbd inspect settings\n  aionbd inspect routes --markdown");
  return [flags] { return run(*flags); };
}

}  // namespace aionbd

// The only file that knows spdlog.
#include "cli/log_lines.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>

#include "cli/row_encoder.h"

namespace aionbd {
namespace {

bool is_key(std::string_view word) {
  return !word.empty() &&
         word.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string_view::npos;
}

/// The next word of `rest`; a value in quotes may hold blanks.
std::string_view take_word(std::string_view* rest) {
  size_t end = 0;
  bool quoted = false;
  while (end < rest->size() && (quoted || (*rest)[end] != ' ')) {
    if ((*rest)[end] == '"') quoted = !quoted;
    ++end;
  }
  const std::string_view word = rest->substr(0, end);
  rest->remove_prefix(std::min(end + 1, rest->size()));
  return word;
}

/// As it is where one word will do, else as a JSON string.
std::string quoted_if_needed(std::string_view text) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != '"' && c != '=' && c != '\\' && c != 0x7F;
  });
  if (plain) return std::string(text);
  std::string out;
  append_json_string(text, &out);
  return out;
}

spdlog::level::level_enum level_of(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

LogFields parse_log_line(std::string_view line) {
  LogFields fields;
  const size_t colon = line.find(": ");
  if (colon != std::string_view::npos && is_key(line.substr(0, colon))) {
    fields.component = line.substr(0, colon);
    line.remove_prefix(colon + 2);
  }
  while (!line.empty()) {
    const std::string_view word = take_word(&line);
    const size_t equals = word.find('=');
    if (equals == std::string_view::npos || !is_key(word.substr(0, equals))) {
      // Words after the first value belong to that value or to nothing: to the message.
      if (!fields.message.empty()) fields.message += ' ';
      fields.message += word;
      continue;
    }
    std::string_view value = word.substr(equals + 1);
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
      value = value.substr(1, value.size() - 2);
    }
    fields.values.emplace_back(word.substr(0, equals), value);
  }
  return fields;
}

std::string logfmt_text(const LogFields& fields) {
  std::string out;
  if (!fields.component.empty()) out += "component=" + fields.component + ' ';
  out += "event=";
  append_json_string(fields.message, &out);
  for (const auto& [key, value] : fields.values) out += ' ' + key + '=' + quoted_if_needed(value);
  return out;
}

std::string json_log_members(const LogFields& fields) {
  std::string out = "\"component\":";
  append_json_string(fields.component, &out);
  out += ",\"event\":";
  append_json_string(fields.message, &out);
  for (const auto& [key, value] : fields.values) {
    out += ",\"" + key + "\":";
    append_json_string(value, &out);
  }
  return out;
}

LogSink stderr_log_sink(std::string_view level, bool json) {
  auto logger =
      std::make_shared<spdlog::logger>("aionbd", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(spdlog::level::info);
  if (level == "debug") logger->set_level(spdlog::level::debug);
  if (level == "warning") logger->set_level(spdlog::level::warn);
  if (level == "error") logger->set_level(spdlog::level::err);
  logger->set_pattern(json ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})"
                           : "time=%Y-%m-%dT%H:%M:%S.%eZ level=%l %v",
                      spdlog::pattern_time_type::utc);
  return [logger, json](LogLevel line_level, std::string_view line) {
    const auto at = level_of(line_level);
    if (!logger->should_log(at)) return;
    const LogFields fields = parse_log_line(line);
    logger->log(at, "{}", json ? json_log_members(fields) : logfmt_text(fields));
  };
}

}  // namespace aionbd

// Log lines of the program: what the library and the server hand out as
// "component: message key=value ..." becomes one structured line, key=value or JSON.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "aionbd/options.h"

namespace aionbd {

/// A line taken apart. Quoted values lose their quotes.
struct LogFields {
  std::string component;
  std::string message;
  std::vector<std::pair<std::string, std::string>> values;
};

LogFields parse_log_line(std::string_view line);
/// `component=server event="ready" after_ms=3`; control characters are escaped, so that no value
/// can pose as another line.
std::string logfmt_text(const LogFields& fields);
/// `"component":"server","event":"ready","after_ms":"3"`, without braces.
std::string json_log_members(const LogFields& fields);

/// A sink that writes finished lines to stderr through spdlog. `level`: debug, info, warning,
/// error.
LogSink stderr_log_sink(std::string_view level, bool json);

}  // namespace aionbd

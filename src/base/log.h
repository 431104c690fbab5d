// The library's log lines: handed to the host's sink, never printed.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "aionbd/options.h"

namespace aionbd {

/// Thread safety: safe if the sink is.
class Logger {
 public:
  Logger() = default;
  explicit Logger(LogSink sink) : sink_(std::move(sink)) {}

  void debug(std::string_view line) const { write(LogLevel::kDebug, line); }
  void info(std::string_view line) const { write(LogLevel::kInfo, line); }
  void warning(std::string_view line) const { write(LogLevel::kWarning, line); }
  void error(std::string_view line) const { write(LogLevel::kError, line); }

 private:
  void write(LogLevel level, std::string_view line) const {
    if (sink_) sink_(level, line);
  }

  LogSink sink_;
};

}  // namespace aionbd

// Arguments on CLI11.
#include "cli/arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "cli/command.h"

namespace aionbd {

// ---- Argument ----------------------------------------------------------------------------------

Argument& Argument::required() {
  option_->required();
  return *this;
}

Argument& Argument::group(const std::string& heading) {
  option_->group(heading);
  return *this;
}

Argument& Argument::value_name(const std::string& name) {
  option_->type_name(name);
  return *this;
}

Argument& Argument::show_default() {
  option_->capture_default_str();
  return *this;
}

Argument& Argument::variable(const std::string& name) {
  option_->envname(name);
  return *this;
}

Argument& Argument::excludes(const Argument& other) {
  option_->excludes(other.option_);
  return *this;
}

template <typename Number>
Argument& Argument::between(Number least, Number most) {
  option_->check(CLI::Range(least, most));
  return *this;
}
template Argument& Argument::between(int, int);
template Argument& Argument::between(uint32_t, uint32_t);
template Argument& Argument::between(uint64_t, uint64_t);
template Argument& Argument::between(double, double);

Argument& Argument::positive() {
  option_->check(CLI::PositiveNumber);
  return *this;
}

Argument& Argument::not_negative() {
  option_->check(CLI::NonNegativeNumber);
  return *this;
}

Argument& Argument::one_of(const std::vector<std::string>& words) {
  option_->check(CLI::IsMember(words));
  return *this;
}

Argument& Argument::existing_file() {
  option_->check(CLI::ExistingFile);
  return *this;
}

bool Argument::given() const {
  return option_->count() > 0;
}

// ---- Arguments ---------------------------------------------------------------------------------

template <typename Value>
Argument Arguments::option(const std::string& names, Value& value, const std::string& help) {
  return Argument(app_->add_option(names, value, help));
}
template Argument Arguments::option(const std::string&, std::string&, const std::string&);
template Argument Arguments::option(const std::string&, int&, const std::string&);
template Argument Arguments::option(const std::string&, uint32_t&, const std::string&);
template Argument Arguments::option(const std::string&, uint64_t&, const std::string&);
template Argument Arguments::option(const std::string&, double&, const std::string&);

Argument Arguments::option(const std::string& names, std::function<void(const std::string&)> take,
                           const std::string& help) {
  return Argument(app_->add_option_function<std::string>(names, std::move(take), help));
}

Argument Arguments::flag(const std::string& names, bool& value, const std::string& help) {
  return Argument(app_->add_flag(names, value, help));
}

void Arguments::version(const std::string& names, const std::string& text) {
  app_->set_version_flag(names, text);
}

void Arguments::footer(const std::string& text) {
  app_->footer(text);
}

Arguments Arguments::command(const std::string& name, const std::string& help) {
  return Arguments(*app_->add_subcommand(name, help));
}

void Arguments::require_command() {
  app_->require_subcommand(1);
}

bool Arguments::named() const {
  return app_->parsed();
}

// ---- CommandLine -------------------------------------------------------------------------------

CommandLine::CommandLine(const std::string& program, const std::string& description)
    : app_(std::make_unique<CLI::App>(description, program)) {
  app_->get_formatter()->label("SUBCOMMAND", "COMMAND");
  app_->get_formatter()->label("Subcommands", "Commands");
}

CommandLine::~CommandLine() = default;

std::string CommandLine::help() const {
  return app_->help();
}

std::optional<int> CommandLine::parse(std::vector<std::string> words) {
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    app_->parse(words);
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    return app_->exit(error) == 0 ? kExitOk : kExitUsage;
  }
}

}  // namespace aionbd

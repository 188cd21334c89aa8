# The flags of every target, and the two functions that make a room and a test one line a module.

add_library(fl_flags INTERFACE)
target_compile_definitions(fl_flags INTERFACE _GNU_SOURCE FL_VERSION="${PROJECT_VERSION}")
target_compile_options(fl_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wformat=2 -Wstrict-prototypes
  -Wmissing-prototypes -Wvla -Wundef -Wno-sign-conversion -Werror
  -fstack-protector-strong -fno-strict-aliasing
  -ffp-contract=off -fno-common -ffile-prefix-map=${CMAKE_SOURCE_DIR}=.)
# clang 14 wants to be begged before it zeroes automatic variables
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  target_compile_options(fl_flags INTERFACE -ftrivial-auto-var-init=zero)
endif()
target_link_options(fl_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64")
  target_compile_options(fl_flags INTERFACE -fcf-protection=full)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64")
  target_compile_options(fl_flags INTERFACE -mbranch-protection=standard)
endif()
if(FL_SANITIZE OR FL_FUZZ)
  target_compile_options(fl_flags INTERFACE -fsanitize=address,undefined
    -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(fl_flags INTERFACE -fsanitize=address,undefined)
else()
  target_compile_options(fl_flags INTERFACE -fstack-clash-protection)
  target_compile_definitions(fl_flags INTERFACE _FORTIFY_SOURCE=3)
endif()
if(FL_FUZZ)
  # clang warns of more than gcc does: warnings stay warnings in this build
  target_compile_options(fl_flags INTERFACE -fsanitize=fuzzer-no-link -Wno-error)
endif()

# fl_room(<room> LINKS ... SOURCES ...): the static library fl_<room>, with one owner.
function(fl_room name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_library(fl_${name} STATIC ${ARG_SOURCES})
  target_include_directories(fl_${name} PUBLIC ${PROJECT_SOURCE_DIR}/common ${PROJECT_SOURCE_DIR})
  target_link_libraries(fl_${name} PUBLIC ${ARG_LINKS} PRIVATE fl_flags)
endfunction()

# fl_program(<program> LINKS ... SOURCES ...): an executable at the top of the build folder.
function(fl_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LINKS} fl_flags)
  target_link_options(${name} PRIVATE -pie)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
endfunction()

# fl_test(<room> <module> [LINKS ...] [NOTORTURE]): tests/unit/<room>/test_<module>.c under ctest.
# Unless NOTORTURE, the suite is also rerun with the nth allocation, write and fsync refused.
function(fl_test room module)
  cmake_parse_arguments(ARG "NOTORTURE" "" "LINKS" ${ARGN})
  set(target test_${room}_${module})
  add_executable(${target} ${PROJECT_SOURCE_DIR}/tests/unit/${room}/test_${module}.c)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests/unit)
  target_link_libraries(${target} PRIVATE fl_runner fl_${room} ${ARG_LINKS} PkgConfig::CHECK
    fl_flags)
  target_compile_definitions(${target} PRIVATE FL_TEST_SOURCE_DIR="${PROJECT_SOURCE_DIR}/tests")
  add_test(NAME unit.${room}.${module} COMMAND ${target})
  set_tests_properties(unit.${room}.${module} PROPERTIES TIMEOUT 120 LABELS unit)
  if(NOT ARG_NOTORTURE)
    add_test(NAME torture.${room}.${module} COMMAND ${target} --torture)
    set_tests_properties(torture.${room}.${module} PROPERTIES TIMEOUT 300 LABELS torture)
  endif()
endfunction()

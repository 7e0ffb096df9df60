// Only the lexer: the page builds elements from its tokens, so no HTML is ever written or parsed.
export { Lexer } from "marked";

export type Scope = { scope?: string; language?: string; children: (Scope | string)[] };
export declare function highlight(code: string, language: string): Scope | null;
